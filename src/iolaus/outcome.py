"""What became of a study's trials, as its pictures and its page tell it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from iolaus.tally import END, FAILED, LOST, SURPLUS, best_of, is_tried_again


def end_of(trial: FrozenTrial) -> str:
    """What became of a trial: the name of its state, or ``failed``, ``lost``, ``interrupted`` or ``surplus``.

    A loss that counts, since nobody tries the parameters again, is a failure.
    """
    if trial.state != TrialState.FAIL:
        return trial.state.name.lower()
    end = str(trial.system_attrs.get(END, FAILED))
    return FAILED if end == LOST and not is_tried_again(trial) else end


def shown(study: Study) -> list[FrozenTrial]:
    """All trials that were not surplus."""
    return [trial for trial in study.get_trials(deepcopy=False) if end_of(trial) != SURPLUS]


def complete_trials(study: Study) -> list[FrozenTrial]:
    """Those that have values."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def best_trials(study: Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best of a study's trials, or with several objectives those that no other beats in all of them."""
    if len(study.directions) > 1:
        return study.best_trials
    best = best_of(study, trials)
    return [] if best is None else [best]


def objectives(study: Study) -> list[str]:
    """The names of the objectives: those that the study gives them, or ``value``."""
    several = len(study.directions) > 1
    return study.metric_names or [f"value {i}" if several else "value" for i in range(len(study.directions))]


def sign_of(study: Study, objective: int) -> int:
    """1 if an objective is to be minimized, -1 if it is to be maximized."""
    return -1 if study.directions[objective] == StudyDirection.MAXIMIZE else 1


def values_of(trials: Sequence[FrozenTrial], objective: int) -> NDArray[np.float64]:
    """Their values of an objective, which may be infinite."""
    return np.array([trial.values[objective] for trial in trials], float)
