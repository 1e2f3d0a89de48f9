"""The functions that a task may call about the trial that it is run for, such as ``iolaus.report(step, value)``."""

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
    """A study cannot continue on this machine, whatever the parameters."""


def current_trial() -> "Trial | None":
    """Return the Optuna trial that the task is run for; None outside a search."""
    return _trial


def current_repeat() -> int | None:
    """Return the number of the repeat that the task is run for, from 0; None if there are no repeats."""
    return _repeat


def set_current_trial(
    trial: "Trial | None", reports: bool = True, repeat: int | None = None, final: bool = False
) -> None:
    """Set the trial that the task is run for; only workers do that.

    Args:
        trial: None when it has ended.
        reports: Its reports decide on pruning.
        repeat: The number of the repeat, if it has several.
        final: All choices are made, so that test images may be looked at.
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
    """Return whether the task is run for the winner of a search, after all choices; False outside a search."""
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
    """Store a run's metrics with its trial, those of its last repeat; do nothing outside a search."""
    if _trial is not None:
        _trial.set_user_attr(RESULTS, dict(results))


def require_same(name: str, value: str) -> None:
    """End the search if something is not as it was for the study's first trial; do nothing outside a search.

    Args:
        name: Its name in the message.
        value: Its value or a digest, such as one of the images.

    Raises:
        MismatchError: which ends the worker; the trial does not count as failed.
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
    """Set by how much a trial violates a constraint: above 0 it cannot be the best. Do nothing outside a search.

    Args:
        name: Of the constraint. The first of a trial's repeats decides.
        value: 0 or less where the constraint holds.
    """
    if _trial is not None and name not in _trial.constraints:
        _trial.set_constraint(name, value)


def report(step: int, value: float) -> None:
    """Report the value of a trial's objective after a step, such as an epoch, and end the trial if it is pruned.

    Outside a search, and with several objectives, for which Optuna has no intermediate values, only a tracker is told.

    Args:
        step: Counted from 0 or 1, each once.
        value: In the objective's own unit.

    Raises:
        optuna.TrialPruned: if the pruner decides so; the task must let it through.
    """
    if _recorder is not None:
        _recorder(step, value)
    if _trial is None or not _reports or len(_trial.study.directions) > 1:
        return
    _trial.report(value, step)
    if _trial.should_prune():
        from optuna import TrialPruned

        raise TrialPruned(f"pruned at step {step}")
