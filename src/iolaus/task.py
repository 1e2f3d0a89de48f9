"""The trial that this process is at work on, for any task: ``iolaus.report(step, value)``."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from iolaus.errors import InputError
from iolaus.study.attributes import RESULTS, SAME

if TYPE_CHECKING:
    from optuna.trial import Trial

_trial: "Trial | None" = None
_reports = True
_repeat: int | None = None
_final = False
_recorder: Callable[[int, float], object] | None = None


class MismatchError(InputError):
    """A study cannot go on here, whichever parameters are tried."""


def current_trial() -> "Trial | None":
    """The Optuna trial that the task is run for; None outside a search."""
    return _trial


def current_repeat() -> int | None:
    """Which of the trial's repeats the task is run for, from 0; None outside a search and where there is only one."""
    return _repeat


def set_current_trial(
    trial: "Trial | None", reports: bool = True, repeat: int | None = None, final: bool = False
) -> None:
    """Say which trial the task is run for: the worker's business.

    Args:
        trial: None when it has ended.
        reports: Whether its reports decide on pruning.
        repeat: Which of its repeats it is.
        final: Whether all is chosen already, so that test images may be looked at.
    """
    global _trial, _reports, _repeat, _final
    _trial, _reports, _repeat, _final = trial, reports, repeat, final


def record_reports(recorder: Callable[[int, float], object] | None) -> None:
    """Have each value that the task reports recorded as well, also outside a search: a tracker's business.

    Args:
        recorder: Called with the step and the value; None ends it.
    """
    global _recorder
    _recorder = recorder


def is_final() -> bool:
    """Whether the task is run for the winner of a search, once all is chosen; False outside a search."""
    return _trial is not None and _final


def require_open_test() -> None:
    """Refuse to look at test images in a trial that others are compared with.

    Raises:
        InputError: in any trial but that of a winner.
    """
    if _trial is not None and not _final:
        raise InputError(
            "the test set is locked: the trials of a search are compared on val; what they see cannot be the final test"
        )


def log_results(results: Mapping[str, float]) -> None:
    """Keep a run's metrics with its trial; outside a search do nothing. Of a trial's repeats the last one's stay."""
    if _trial is not None:
        _trial.set_user_attr(RESULTS, dict(results))


def require_same(name: str, value: str) -> None:
    """End the search if something is not as it was for the study's first trial; outside a search do nothing.

    Args:
        name: What it is, as it is to be called in the message.
        value: What must be equal, such as a digest of the images.

    Raises:
        MismatchError: which ends the worker, and does not count against the trial.
    """
    if _trial is None:
        return
    known = _trial.study.user_attrs.get(SAME + name)
    if known is None:
        _trial.study.set_user_attr(SAME + name, value)
    elif known != value:
        raise MismatchError(
            f"{name} is not what study {_trial.study.study_name} began with, so its trials could not be compared: use "
            "another study_name, or go on all the same with hydra.sweeper.on_mismatch=continue"
        )


def constrain(name: str, value: float) -> None:
    """Say by how much a trial breaks a constraint: above 0 it cannot be the best. Outside a search do nothing.

    Args:
        name: Of the constraint. Of a trial's repeats the first one decides.
        value: 0 or less keeps it.
    """
    if _trial is not None and name not in _trial.constraints:
        _trial.set_constraint(name, value)


def report(step: int, value: float) -> None:
    """Report how a trial is doing: its objective's value after some step, such as an epoch.

    Outside a search, and in one for several objectives, of which Optuna keeps no such values, only a tracker hears it.

    Args:
        step: Counted from 0 or 1, each once.
        value: In the objective's own unit.

    Raises:
        optuna.TrialPruned: if the pruner gives the trial up, which then has to end.
    """
    if _recorder is not None:
        _recorder(step, value)
    if _trial is None or not _reports or len(_trial.study.directions) > 1:
        return
    _trial.report(value, step)
    if _trial.should_prune():
        from optuna import TrialPruned

        raise TrialPruned(f"pruned at step {step}")
