"""The repetition of a recorded run: ``from_run=<MLflow run id>`` or ``from_trial=<study>/<number>``.

The run's overrides are put on the command line before Hydra composes; whatever else differs is compared and logged.
"""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from iolaus import command_line
from iolaus.classifier.run import config
from iolaus.errors import InputError
from iolaus.search_space.keys import bare_key
from iolaus.system.provenance import RECORD, find_record

KEYS = ("from_run", "from_trial")
EARLIER = re.compile(r"\biolaus\.(?!classifier\b)")
"""A name of Iolaus' own code from before the package ``iolaus.classifier``."""
PINNED = {"device": "resolved.device", "precision": "resolved.precision", "threads": "resolved.threads"}
"""Keys for which ``auto`` may mean something else elsewhere, and the tags with what it meant."""
CHECKED = ("data_digest", "mlflow.source.git.commit", "git_dirty", "machine", *PINNED.values())
"""Tags that are compared, besides every ``version.*``."""
RESULTS = {
    **{f"best/{name}": name for name in ("train/loss", "val/accuracy", "val/loss")},
    **{name: name for name in ("test/accuracy", "test/loss")},
}
"""The metrics that are compared: their names in MLflow and in ``metrics.json``."""


@dataclass
class Recorded:
    """The record of a run.

    Args:
        origin: ``from_run=...`` or ``from_trial=...``.
        overrides: The overrides that it was composed with.
        params: Its params, named as by `iolaus.classifier.run.config.params`, with texts as values.
        tags: Its tags, as texts.
        results: Its metrics, named as in ``metrics.json``.
    """

    origin: str
    overrides: list[str]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    results: Mapping[str, float]

    @property
    def in_search(self) -> bool:
        """True for a run that was compared with others, and therefore has seen no test image."""
        return self.tags.get("in_search") == "True"

    def differences(self, params: Mapping[str, Any], tags: Mapping[str, Any]) -> Iterator[str]:
        """Yield what differs between the recorded run and the one that repeats it.

        Args:
            params: The params of the run that repeats it.
            tags: Its tags.
        """
        missing = "(absent)"
        for name in sorted(self.params.keys() | params.keys()):
            then, now = self.params.get(name, missing), str(params.get(name, missing))
            if then != now and name not in PINNED:
                yield f"{name} was {then}, now {now}"
        names = [*CHECKED, *sorted(name for name in self.tags if name.startswith("version."))]
        for name in names:
            then, now = self.tags.get(name, missing), str(tags.get(name, missing))
            if name == "git_dirty":
                if then == "true" or now == "true":
                    which = "then" if then == "true" else "now"
                    yield f"the code had changes {which} that are in no commit"
            elif then != now:
                yield f"{name} was {then}, now {now}"

    def compare_results(self, results: Mapping[str, float]) -> str:
        """Return a sentence on the differences between the metrics of the recorded run and the one that repeats it.

        Args:
            results: The metrics of the latter, named as in ``metrics.json``.
        """
        both = {name: (self.results[name], results[name]) for name in RESULTS.values()
                if name in self.results and name in results}  # fmt: skip
        if not both:
            return f"{self.origin} has no metrics to compare with"
        changed = [f"{name} was {then!r}, now {now!r}" for name, (then, now) in both.items() if then != now]
        if changed:
            return f"not the same as {self.origin}: {'; '.join(changed)}"
        return f"bitwise the same as {self.origin}: {', '.join(f'{name} {now!r}' for name, (_, now) in both.items())}"


def expand(argv: Sequence[str]) -> list[str]:
    """Put a recorded run's overrides before those beside its ``from_run`` or ``from_trial``.

    Where the command line names the same key, only its own override remains. Values that ``auto`` stood for are pinned.

    Raises:
        InputError: if there is no such run, or it cannot be repeated.
    """
    origins = [arg for arg in argv if arg.split("=", 1)[0] in KEYS]
    if not origins:
        return list(argv)
    given = {bare_key(arg) for arg in argv}
    if len(origins) > 1 or "resume" in given:
        raise InputError("from_run, from_trial and resume are mutually exclusive: give one of them")
    if {"-m", "--multirun"} & set(argv):
        raise InputError(f"{origins[0]} is one run: leave out -m")
    recorded = _read(origins[0], argv)
    pinned = [f"{key}={recorded.tags[tag]}" for key, tag in PINNED.items() if tag in recorded.tags]
    kept = [override for override in command_line.harmless(recorded.overrides) if bare_key(override) not in PINNED]
    expanded = [override for override in (*kept, *pinned) if not _is_dropped(bare_key(override), given)]
    code = [override for override in expanded if "_target_" in override]
    if earlier := [override for override in code if EARLIER.search(override)]:
        raise InputError(
            f"{origins[0]} was made by an earlier version of Iolaus, with other names ({shlex.join(earlier)}): use "
            "that version, or repeat these beside it with the names of today"
        )
    if code:
        raise InputError(f"{origins[0]} names code to be called, which must be repeated beside it: {shlex.join(code)}")
    return [*expanded, *argv]


def _is_dropped(key: str, given: set[str]) -> bool:
    """Return True for a key that the command line names, also by its group, and for one that is no setting of a run."""
    parts = key.split(".")
    within = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return bool(within & (given | set(config.NOT_SETTINGS)))


def recorded(cfg: DictConfig) -> Recorded | None:
    """Return the record of the run that a configuration repeats; None if it repeats none."""
    for key in KEYS:
        if cfg[key] is not None:
            return _read(f"{key}={cfg[key]}", [f"root={cfg.root}", *_uri(cfg)])
    return None


def _uri(cfg: DictConfig) -> list[str]:
    uri = OmegaConf.select(cfg, "tracking.uri")
    return [] if uri is None else [f"tracking.uri={uri}"]


def _read(origin: str, argv: Sequence[str]) -> Recorded:
    key, _, name = origin.partition("=")
    name = name.strip("'\"")
    root = Path(_value("root", argv) or config.project_root())
    if key == "from_trial":
        return _of_trial(origin, name, root / "multirun")
    uri = _value("tracking.uri", argv) or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root}/mlflow.db"
    return _of_run(origin, name, uri)


def _value(key: str, argv: Sequence[str]) -> str | None:
    return next((arg.split("=", 1)[1].strip("'\"") for arg in argv if arg.startswith(f"{key}=")), None)


def _of_run(origin: str, run_id: str, uri: str) -> Recorded:
    from iolaus.tracking.environment import first_line, set_environment

    file = uri.removeprefix("sqlite:///")
    if "://" not in file and not Path(file).is_file():
        raise InputError(f"{origin}: there is no MLflow database {file}")
    set_environment()
    import mlflow

    mlflow.set_tracking_uri(uri)
    try:
        data = mlflow.get_run(run_id).data
    except mlflow.exceptions.MlflowException as error:
        raise InputError(f"{origin}: {first_line(error)}") from error
    if "overrides" not in data.tags or "resolved.device" not in data.tags:
        raise InputError(
            f"{origin} was not logged by a training run of this program, so it cannot be repeated: give the id of one "
            "that MLflow shows with the tag overrides"
        )
    results = {ours: data.metrics[theirs] for theirs, ours in RESULTS.items() if theirs in data.metrics}
    return Recorded(origin, shlex.split(data.tags["overrides"]), data.params, data.tags, results)


def _of_trial(origin: str, name: str, root: Path) -> Recorded:
    from iolaus.study import catalog  # with Optuna, which other runs need not import

    study, _, number = name.rpartition("/")
    if not study or not number.isdecimal():
        raise InputError(f"from_trial must be such as mystudy/17, but got {name}")
    stored = catalog.find_one(study, root)
    trials = stored.study.get_trials(deepcopy=False)
    if int(number) >= len(trials):
        raise InputError(f"study {study} has no trial {number}, but those from 0 to {len(trials) - 1}")
    folder = stored.trial_folder(trials[int(number)])
    path = find_record(folder)
    if path is None:
        raise InputError(
            f"{origin}: the folder of this trial ({folder}) has no {RECORD}, so its configuration is unknown; if it "
            "was tracked, repeat it with from_run"
        )
    record, here = json.loads(path.read_text()), path.parent
    overrides = list(map(str, OmegaConf.load(here / ".hydra" / "overrides.yaml")))
    metrics = here / "metrics.json"
    results = json.loads(metrics.read_text()) if metrics.is_file() else {}
    return Recorded(origin, overrides, record["params"], record["tags"], results)
