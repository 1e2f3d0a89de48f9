"""Studies that are already there: listed, deleted, freed of what their trials no longer need."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial, TrialState

from iolaus.errors import InputError, require
from iolaus.optuna_internals import storage_of
from iolaus.study.attributes import FINALS, FOLDER, GOALS, GROWN, STOPS, STUDY_FOLDER, TEST
from iolaus.study.queue import Goals
from iolaus.study.storage import open_storage
from iolaus.study.tally import Tally
from iolaus.study.trials import is_alive

FREED = ("checkpoint.pt", "model.pt")
"""What `free` deletes from a trial's folder: the first is for going on with it, the second for predicting."""

PARTS = (FINALS, TEST)
"""Folders of what follows a search."""
OURS = ("journal.log*", "*.lock", "optimization_results.yaml", "report.html")
"""What a sweep writes beside its trials' folders."""


@dataclass(frozen=True)
class StoredStudy:
    """A study, and where its trials' folders lie."""

    study: optuna.Study
    folder: Path | None
    in_folder: bool
    """Whether its journal lies there too."""

    @property
    def alive(self) -> list[int]:
        """The numbers of the trials that somebody is at work on."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.number for trial in trials if is_alive(trial)]

    def trial_folder(self, trial: FrozenTrial) -> Path | None:
        """Where a trial has written."""
        name = trial.user_attrs.get(FOLDER)
        return self.folder / name if self.folder is not None and name is not None else None

    def line(self) -> str:
        """The study in a line: name, trials, best value, last activity, size."""
        trials = self.study.get_trials(deepcopy=False)
        tally = Tally.of(self.study, trials)
        best = tally.best
        moments = [moment for trial in trials for moment in (trial.datetime_start, trial.datetime_complete) if moment]
        parts = [f"{tally.counted} trials", f"{tally.failed} failed", f"{len(self.alive)} running"]
        if best is not None:
            parts.append(f"best {best.values[0]:.6g} (trial {best.number})")
        if moments:
            parts.append(f"last {max(moments):%Y-%m-%d %H:%M}")
        if self.folder is not None and self.folder.is_dir():
            parts.append(f"{_size(self.folder) / 1e6:,.1f} MB in {self.folder}")
        return f"{self.study.study_name}: {', '.join(parts)}"


def find(root: Path, storage: str | None = None, parts: bool = False) -> Iterator[StoredStudy]:
    """Give each study, the one with the newest journal last.

    Args:
        root: The folder of sweeps, in which each study has one with its journal.
        storage: Where the studies are kept instead.
        parts: Whether also those of what followed a search, whose journals lie in its folder.

    Raises:
        InputError: if a storage cannot be read.
    """
    path = (storage or "").removeprefix("sqlite:///")
    if storage is not None and "://" not in path and not Path(path).exists():
        raise InputError(f"there is no storage {storage}")
    places = ["*", *(f"*/{part}" for part in PARTS if parts)]
    found = [path for place in places for path in root.glob(f"{place}/journal.log")]
    journals = sorted(found, key=lambda path: path.stat().st_mtime)
    for source in [storage] if storage is not None else map(str, journals):
        opened = open_storage(source)
        for name in optuna.get_all_study_names(opened):
            study = optuna.load_study(
                study_name=name, storage=opened, pruner=NopPruner()
            )  # nothing is pruned from here
            folder = study.user_attrs.get(STUDY_FOLDER)
            known = Path(source).parent if storage is None else Path(folder) if folder else None
            yield StoredStudy(study, known, in_folder=storage is None)


def find_one(name: str, root: Path, storage: str | None = None) -> StoredStudy:
    """Give the study of this name.

    Raises:
        InputError: if there is none, naming those that there are.
    """
    names = []
    for kept in find(root, storage, parts=True):
        if kept.study.study_name == name:
            return kept
        names.append(kept.study.study_name)
    where = storage if storage is not None else root
    raise InputError(f"there is no study {name} in {where}, but {', '.join(names) or 'none at all'}")


def delete(kept: StoredStudy) -> None:
    """Delete a study with what followed it, and what its sweeps have written; what MLflow has recorded of it stays.

    Raises:
        InputError: if somebody is at work on it.
    """
    followed = parts(kept)
    for one in (*followed, kept):
        _require_idle(one)
    for part in followed:
        delete(part)
    folders = [kept.trial_folder(trial) for trial in kept.study.get_trials(deepcopy=False)]
    storage = storage_of(kept.study)
    optuna.delete_study(study_name=kept.study.study_name, storage=storage)
    for folder in folders:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    if kept.folder is None or not kept.folder.is_dir() or (kept.in_folder and optuna.get_all_study_names(storage)):
        return  # another study lies there as well
    for name in ("workers", "report"):
        shutil.rmtree(kept.folder / name, ignore_errors=True)
    ours = OURS if kept.in_folder else OURS[1:]
    for path in [path for pattern in ours for path in kept.folder.glob(pattern)]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds something else, which is not ours to delete
        kept.folder.rmdir()


def free(kept: StoredStudy) -> int:
    """Delete the checkpoints and models of all trials but the best, and of the finals, and give the bytes freed.

    Raises:
        InputError: if somebody is at work on the study.
    """
    finals = [part for part in parts(kept) if part.study.study_name.endswith(f"-{FINALS}")]
    for one in (*finals, kept):
        _require_idle(one)
    trials = kept.study.get_trials(deepcopy=False)
    best = {trial.number for trial in (kept.study.best_trials if any(trial.values for trial in trials) else [])}
    folders = [kept.trial_folder(trial) for trial in trials if trial.number not in best]
    folders += [part.trial_folder(trial) for part in finals for trial in part.study.get_trials(deepcopy=False)]
    freed = 0
    for folder in folders:
        # a repeat has a folder in the trial's
        for path in [path for name in FREED for path in folder.rglob(name)] if folder is not None else []:
            freed += path.stat().st_size
            path.unlink()
    return freed


def parts(kept: StoredStudy) -> list[StoredStudy]:
    """The studies of what followed a search."""
    names = [f"{kept.study.study_name}-{part}" for part in PARTS]
    if kept.in_folder and kept.folder is not None:
        return [part for part in find(kept.folder) if part.study.study_name in names]
    storage = storage_of(kept.study)
    found = [optuna.load_study(study_name=name, storage=storage, pruner=NopPruner())
             for name in names if name in optuna.get_all_study_names(storage)]  # fmt: skip
    folders = [study.user_attrs.get(STUDY_FOLDER) for study in found]
    return [
        StoredStudy(study, Path(folder) if folder else None, False)
        for study, folder in zip(found, folders, strict=True)
    ]


def stop(kept: StoredStudy) -> None:
    """Ask the commands that search to begin no further trial; a later command goes on."""
    kept.study.set_user_attr(STOPS, kept.study.user_attrs.get(STOPS, 0) + 1)


def grow(kept: StoredStudy, n_trials: int) -> None:
    """Raise a study's total, also for the commands that search now.

    Raises:
        InputError: if it is not above the total that the last command asked for, or more than there can be.
    """
    goals = goals_of(kept)
    require(n_trials > goals.n_trials, "the new total", f"above the command's own, {goals.n_trials}", n_trials)
    if goals.limit is not None and n_trials > goals.limit:
        raise InputError(f"{kept.study.study_name} goes through a list of {goals.limit} points: it cannot grow beyond")
    kept.study.set_user_attr(GROWN, n_trials)


def goals_of(kept: StoredStudy) -> Goals:
    """Return the goals of the last command that searched."""
    known = {"n_trials": 1, **kept.study.user_attrs.get(GOALS, {})}
    return Goals(**{field.name: known[field.name] for field in dataclasses.fields(Goals) if field.name in known})


def _require_idle(kept: StoredStudy) -> None:
    if kept.alive:
        raise InputError(
            f"study {kept.study.study_name} has running trials ({', '.join(map(str, kept.alive))}): end the sweep first"
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
