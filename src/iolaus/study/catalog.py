"""The catalog of stored studies: to find, free, delete, stop and grow them."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.pruners import NopPruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from iolaus.errors import InputError, require
from iolaus.optuna_internals import storage_of
from iolaus.study.attributes import FINALS, FOLDER, GOALS, GROWN, STOPS, STUDY_FOLDER, TEST
from iolaus.study.identity import other_version, require_format
from iolaus.study.queue import Goals
from iolaus.study.storage import open_storage
from iolaus.study.tally import Tally
from iolaus.study.trials import is_alive

FREED = ("checkpoint.pt", "model.pt")
"""The files that `free` deletes in trials' folders: a run resumes from the first, and predicts with the second."""
PARTS = (FINALS, TEST)
"""Endings of the names of part studies, and the names of their folders."""
OURS = ("journal.log*", "*.lock", "optimization_results.yaml", "report.html")
"""Files that a sweep writes beside its trials' folders."""


@dataclass(frozen=True)
class StoredStudy:
    """A study, and the folder of its trials' folders."""

    study: optuna.Study
    folder: Path | None
    """None if the study has no note of it."""
    in_folder: bool
    """True if the study's journal lies in that folder."""

    @property
    def alive(self) -> list[int]:
        """The numbers of the trials that a live process runs."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.number for trial in trials if self._is_alive(trial)]

    def _is_alive(self, trial: FrozenTrial) -> bool:
        try:
            return is_alive(trial)
        except (KeyError, TypeError):  # another version's lease: to take its trial for dead could end it
            if other_version(self.study) is None:
                raise
            return True

    def trial_folder(self, trial: FrozenTrial) -> Path | None:
        """Return the folder of a trial; None if it has none."""
        name = trial.user_attrs.get(FOLDER)
        return self.folder / name if self.folder is not None and name is not None else None

    def line(self) -> str:
        """Return the study in a line: name, trials, best value, last activity, size."""
        made_by = other_version(self.study)
        parts = [made_by] if made_by is not None else list(self._activity())
        if self.folder is not None and self.folder.is_dir():
            parts.append(f"{_size(self.folder) / 1e6:,.1f} MB in {self.folder}")
        return f"{self.study.study_name}: {', '.join(parts)}"

    def _activity(self) -> Iterator[str]:
        trials = self.study.get_trials(deepcopy=False)
        tally = Tally.of(self.study, trials)
        yield f"{tally.counted} trials, {tally.failed} failed, {len(self.alive)} running"
        if tally.best is not None:
            yield f"best {tally.best.values[0]:.6g} (trial {tally.best.number})"
        moments = [moment for trial in trials for moment in (trial.datetime_start, trial.datetime_complete) if moment]
        if moments:
            yield f"last {max(moments):%Y-%m-%d %H:%M}"


def find(root: Path, storage: str | None = None, with_parts: bool = False) -> Iterator[StoredStudy]:
    """Yield each study, the one with the newest journal last, whichever version made it.

    Args:
        root: The folder of sweeps, in which each study has a folder with its journal.
        storage: Where the studies are stored instead.
        with_parts: Include the part studies that followed a search, whose journals lie in its folder.

    Raises:
        InputError: if a storage cannot be read.
    """
    path = (storage or "").removeprefix("sqlite:///")
    if storage is not None and "://" not in path and not Path(path).exists():
        raise InputError(f"there is no storage {storage}")
    if storage is not None:
        yield from _in_storage(open_storage(storage))
        return
    places = ["*", *(f"*/{part}" for part in PARTS if with_parts)]
    journals = [path for place in places for path in root.glob(f"{place}/journal.log")]
    for journal in sorted(journals, key=lambda path: path.stat().st_mtime):
        yield from _in_storage(open_storage(str(journal)), journal.parent)


def _in_storage(storage: BaseStorage, folder: Path | None = None) -> Iterator[StoredStudy]:
    """Yield the studies of a storage, which is a journal in a folder or stands elsewhere."""
    for name in optuna.get_all_study_names(storage):
        yield _load(storage, name, folder)


def _load(storage: BaseStorage, name: str, folder: Path | None = None) -> StoredStudy:
    study = optuna.load_study(study_name=name, storage=storage, pruner=NopPruner())  # nothing is pruned from here
    noted = study.user_attrs.get(STUDY_FOLDER)
    return StoredStudy(study, folder or (Path(noted) if noted else None), in_folder=folder is not None)


def find_one(name: str, root: Path, storage: str | None = None, any_version: bool = False) -> StoredStudy:
    """Return the study of this name.

    Args:
        name: Of a study or of a part study.
        root: As `find` takes it.
        storage: As `find` takes it.
        any_version: Return it also if its trials cannot be read here, since another version made it; `delete` can
            deal with that.

    Raises:
        InputError: if there is none, naming those that there are, or if another version made it.
    """
    names = []
    for stored in find(root, storage, with_parts=True):
        if stored.study.study_name == name:
            if not any_version:
                require_format(stored.study)
            return stored
        names.append(stored.study.study_name)
    where = storage if storage is not None else root
    raise InputError(f"there is no study {name} in {where}; available: {', '.join(names) or 'none'}")


def delete(stored: StoredStudy) -> None:
    """Delete a study with its part studies, and what its sweeps have written; what MLflow has logged of it stays.

    Raises:
        InputError: if a live process works on it.
    """
    followed = parts(stored, any_version=True)
    for one in (*followed, stored):
        _require_idle(one)
    for part in followed:
        delete(part)
    folders = [stored.trial_folder(trial) for trial in stored.study.get_trials(deepcopy=False)]
    storage = storage_of(stored.study)
    optuna.delete_study(study_name=stored.study.study_name, storage=storage)
    for folder in folders:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    if stored.folder is None or not stored.folder.is_dir():
        return
    if stored.in_folder and optuna.get_all_study_names(storage):
        return  # another study lies there as well
    for name in ("workers", "report"):
        shutil.rmtree(stored.folder / name, ignore_errors=True)
    ours = OURS if stored.in_folder else OURS[1:]
    for path in [path for pattern in ours for path in stored.folder.glob(pattern)]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds something else, which is not ours to delete
        stored.folder.rmdir()


def free(stored: StoredStudy) -> int:
    """Delete the checkpoints and models of all trials but the best, and of the finals, and return the bytes freed.

    Raises:
        InputError: if a live process works on the study.
    """
    finals = [part for part in parts(stored) if part.study.study_name.endswith(f"-{FINALS}")]
    for one in (*finals, stored):
        _require_idle(one)
    trials = stored.study.get_trials(deepcopy=False)
    best = {trial.number for trial in (stored.study.best_trials if any(trial.values for trial in trials) else [])}
    folders = [stored.trial_folder(trial) for trial in trials if trial.number not in best]
    folders += [part.trial_folder(trial) for part in finals for trial in part.study.get_trials(deepcopy=False)]
    freed = 0
    for folder in folders:
        # a repeat has a folder in the trial's
        for path in [path for name in FREED for path in folder.rglob(name)] if folder is not None else []:
            freed += path.stat().st_size
            path.unlink()
    return freed


def parts(stored: StoredStudy, any_version: bool = False) -> list[StoredStudy]:
    """Return the part studies that followed a search.

    Args:
        stored: The study of the search.
        any_version: Return also those that another version made.

    Raises:
        InputError: if another version made one of them.
    """
    names = [f"{stored.study.study_name}-{part}" for part in PARTS]
    if stored.in_folder and stored.folder is not None:
        found = [part for part in find(stored.folder) if part.study.study_name in names]
    else:
        storage = storage_of(stored.study)
        there = optuna.get_all_study_names(storage)
        found = [_load(storage, name) for name in names if name in there]
    for part in found if not any_version else []:
        require_format(part.study)
    return found


def stop(stored: StoredStudy) -> None:
    """Ask the commands that search to begin no further trial; a later command continues."""
    stored.study.set_user_attr(STOPS, stored.study.user_attrs.get(STOPS, 0) + 1)


def grow(stored: StoredStudy, n_trials: int) -> None:
    """Raise a study's total, also for the commands that search now.

    Raises:
        InputError: if it is not above the total that the last command asked for, or more than there can be.
    """
    goals = goals_of(stored)
    require(n_trials > goals.n_trials, "the new total", f"above the command's own, {goals.n_trials}", n_trials)
    if goals.limit is not None and n_trials > goals.limit:
        name = stored.study.study_name
        raise InputError(f"{name} goes through a list of {goals.limit} points: it cannot grow beyond")
    stored.study.set_user_attr(GROWN, n_trials)


def goals_of(stored: StoredStudy) -> Goals:
    """Return the goals of the last command that searched."""
    known = {"n_trials": 1, **stored.study.user_attrs.get(GOALS, {})}
    return Goals(**{field.name: known[field.name] for field in dataclasses.fields(Goals) if field.name in known})


def _require_idle(stored: StoredStudy) -> None:
    if stored.alive:
        name, numbers = stored.study.study_name, ", ".join(map(str, stored.alive))
        raise InputError(f"study {name} has running trials ({numbers}): end the sweep first")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
