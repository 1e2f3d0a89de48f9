"""The kind of a run, decided in one place: new, resumed or repeated; on its own or a trial of a search."""

import contextlib
import functools
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import iolaus
from iolaus import command_line
from iolaus.classifier.run import config, reproduce, test_set_log
from iolaus.errors import InputError
from iolaus.system import provenance

if TYPE_CHECKING:  # a mistake is answered without PyTorch
    from iolaus.classifier.data.dataset import Data
    from iolaus.classifier.training.loop import Metrics, State

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resumed:
    """An interrupted run, as its checkpoint has it."""

    path: Path
    state: "State"
    identity: Mapping[str, Any]
    """See `RunContext.identity`."""
    run_id: str | None
    """The id of the tracked run."""

    @classmethod
    def load(cls, path: Path) -> "Resumed":
        """Read a ``checkpoint.pt``.

        Raises:
            InputError: for a file that is missing, damaged, or not a checkpoint of this version.
        """
        from iolaus.classifier.training import checkpoint

        return cls(path, *checkpoint.load_state(path))


@dataclass(frozen=True)
class RunContext:
    """The kind of a run, with its folder, its settings, and the run that it continues or repeats."""

    output: Path
    """The folder for all files of the run."""
    root: Path
    """The project's folder, in which looks at the test set are counted."""
    overrides: Sequence[str]
    """The overrides that the run was composed with, without Hydra's own."""
    settings: dict[str, Any]
    """The configuration as plain values, without what may differ between a run and its resumption."""
    params: dict[str, Any]
    """The settings as a tracker gets them."""
    in_search: bool
    """True for a run that is compared with others to select the best: it must not see the test set."""
    resumed: Resumed | None
    """The run that this one continues."""
    recorded: reproduce.Recorded | None
    """The run that this one repeats."""

    @classmethod
    def of(cls, cfg: DictConfig) -> "RunContext":
        """Return the context of the run with this configuration; call it within the run's Hydra job.

        Raises:
            InputError: for a search without ``-m`` or without val, and for a run that cannot be resumed or repeated.
        """
        job = HydraConfig.get()
        choices = job.runtime.choices
        is_new = cfg.resume is None and cfg.from_run is None and cfg.from_trial is None
        if job.mode == RunMode.RUN and is_new and choices["hparams_search"] not in (None, "null"):
            raise InputError("hparams_search needs -m: without it there is one run, which reads the test set")
        resumed = None if cfg.resume is None else Resumed.load(Path(cfg.resume))
        recorded = reproduce.recorded(cfg)
        in_search = _is_in_search(job, resumed, recorded)
        if in_search and cfg.train_on_val:
            raise InputError("train_on_val=true leaves a search nothing to compare by: add train_on_val=false")
        settings = config.settings(cfg)
        return cls(
            output=Path(job.runtime.output_dir),
            root=Path(cfg.root),
            overrides=list(job.overrides.task),
            settings=settings,
            params=config.params(settings, choices),
            in_search=in_search,
            resumed=resumed,
            recorded=recorded,
        )

    @property
    def state(self) -> "State | None":
        """The state to continue from; None for a run from the start."""
        return None if self.resumed is None else self.resumed.state

    @property
    def history(self) -> list["Metrics"]:
        """The metrics of each epoch that is done already."""
        return [] if self.resumed is None else self.resumed.state.history

    @property
    def run_id(self) -> str | None:
        """The id of the tracked run to continue, if there is one."""
        return None if self.resumed is None else self.resumed.run_id

    @property
    def checkpoint(self) -> Path:
        """The file from which the run can be resumed."""
        return self.output / "checkpoint.pt"

    def identity(self, data_digest: str) -> dict[str, Any]:
        """Return what a run and its resumption must have in common, as plain values."""
        return {**self.settings, "in_search": self.in_search, "data_digest": data_digest}

    def guard(self, data: "Data") -> None:
        """Lock the test set in a search, have each use of it recorded, and check that a study's data stay the same.

        Raises:
            iolaus.task.MismatchError: for a trial on other images than those of the study's first trial.
        """
        if self.in_search:
            data.lock_test("the trials of a search are compared on val; what they see cannot be the final test")
        data.on_test_read = functools.partial(test_set_log.record, self.root, data.name, str(self.output))
        iolaus.require_same("the content of the data", data.digest)

    def begin(self, data_digest: str, device: object, precision: str, threads: int) -> dict[str, object]:
        """Check the settings of a resumed run, write the run's record, and log how a repeated run differs.

        Args:
            data_digest: See `iolaus.classifier.data.dataset.Data.digest`.
            device: The device that it computes on.
            precision: ``fp32`` or ``bf16``.
            threads: PyTorch's number of threads.

        Returns:
            The tags of the run, for a tracker.

        Raises:
            InputError: for a run that is resumed under other settings.
        """
        if self.resumed is not None:
            config.check_same_settings(self.identity(data_digest), self.resumed.identity, str(self.resumed.path))
        tags = {
            "overrides": shlex.join(self.overrides),
            "output_dir": self.output,
            "resolved.device": device,
            "resolved.precision": precision,
            "resolved.threads": threads,
            "data_digest": data_digest,
            "in_search": self.in_search,
            **provenance.tags(config.project_root()),
        }
        provenance.write_record(self.output, self.params, tags)
        if self.recorded is not None:
            log.info("%s: %s", self.recorded.origin, shlex.join(self.overrides))
            for difference in self.recorded.differences(self.params, tags):
                log.warning("not as in %s: %s", self.recorded.origin, difference)
        return tags

    @contextlib.contextmanager
    def interruption_explained(self) -> Iterator[None]:
        """Log the command that resumes the run if it is interrupted; a search retries a trial by itself."""
        try:
            yield
        except KeyboardInterrupt:
            if self.checkpoint.exists() and iolaus.current_trial() is None:
                log.info("to resume:  %s", command_line.resume_command(self.overrides, self.checkpoint))
            raise


def _is_in_search(job: HydraConf, resumed: Resumed | None, recorded: reproduce.Recorded | None) -> bool:
    searches = job.mode == RunMode.MULTIRUN and job.runtime.choices["hydra/sweeper"] != "basic"
    in_search = searches and not iolaus.is_final()  # the winner's runs, after selection, are like any other
    in_search |= resumed is not None and resumed.identity["in_search"]  # a resumed trial sees no test image either
    in_search |= recorded is not None and recorded.in_search  # nor does a repeated one
    return in_search
