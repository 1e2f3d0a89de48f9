"""The trial that this process is at work on, for any task: ``iolaus.report(step, value)``."""

from typing import TYPE_CHECKING

from iolaus.errors import InputError

if TYPE_CHECKING:
    from optuna.trial import Trial

_trial: "Trial | None" = None


def current_trial() -> "Trial | None":
    """The Optuna trial that the task is run for; None outside a search."""
    return _trial


def set_current_trial(trial: "Trial | None") -> None:
    """Say which trial the task is run for: the worker's business."""
    global _trial
    _trial = trial


def require_same(name: str, value: str) -> None:
    """Refuse a trial for which something is not as it was for the study's first one; outside a search do nothing.

    Args:
        name: What it is, as it is to be called in the message.
        value: What must be equal, such as a digest of the images.

    Raises:
        InputError: which makes the trial fail.
    """
    if _trial is None:
        return
    known = _trial.study.user_attrs.get(f"iolaus:{name}")
    if known is None:
        _trial.study.set_user_attr(f"iolaus:{name}", value)
    elif known != value:
        raise InputError(f"{name} is not what the study began with: its trials could not be compared")


def report(step: int, value: float) -> None:
    """Report how a trial is doing: its objective's value after some step, such as an epoch.

    Does nothing outside a search, and none in one for several objectives, of which Optuna keeps no such values.

    Args:
        step: Counted from 0 or 1, each once.
        value: In the objective's own unit.
    """
    if _trial is not None and len(_trial.study.directions) == 1:
        _trial.report(value, step)
