"""The trial that this process is at work on, for any task: ``iolaus.report(step, value)``."""

from typing import TYPE_CHECKING

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


def report(step: int, value: float) -> None:
    """Report how a trial is doing: its objective's value after some step, such as an epoch.

    Does nothing outside a search, and none in one for several objectives, of which Optuna keeps no such values.

    Args:
        step: Counted from 0 or 1, each once.
        value: In the objective's own unit.
    """
    if _trial is not None and len(_trial.study.directions) == 1:
        _trial.report(value, step)
