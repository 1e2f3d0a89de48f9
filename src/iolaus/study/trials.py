"""What became of a study's trials, as its pictures and its page tell it."""

import re
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from iolaus.study.attributes import END, FAILED, FOLDER, INTERRUPTED, LEASE, LOSSES, LOST
from iolaus.system.lease import LEASE_S, holds, lease


def end_of(trial: FrozenTrial) -> str:
    """What became of a trial: the name of its state, or ``failed``, ``lost``, ``interrupted`` or ``surplus``.

    A loss that counts, since nobody tries the parameters again, is a failure.
    """
    if trial.state != TrialState.FAIL:
        return trial.state.name.lower()
    end = str(trial.system_attrs.get(END, FAILED))
    return FAILED if end == LOST and not is_tried_again(trial) else end


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


MAX_LOSSES = 3
"""The loss that counts, so that parameters whose trial always gets killed cannot keep a study from ending."""


def keeps_constraints(trial: FrozenTrial) -> bool:
    """Whether a trial keeps all constraints."""
    return all(value <= 0 for value in trial.constraints.values())


def is_tried_again(trial: FrozenTrial) -> bool:
    """Whether a trial ended without saying anything about its parameters, which another one therefore takes up."""
    end = trial.system_attrs.get(END)
    return trial.state == TrialState.FAIL and (end == INTERRUPTED or (end == LOST and losses(trial) < MAX_LOSSES))


def is_alive(trial: FrozenTrial) -> bool:
    """Whether a running trial can still come to an end by itself."""
    if LEASE in trial.system_attrs:
        return holds(trial.system_attrs[LEASE])
    # Another program's, which renews nothing, or one that has just been taken from the queue.
    assert trial.datetime_start is not None
    return time.time() < trial.datetime_start.timestamp() + LEASE_S


def is_begun(trial: FrozenTrial) -> bool:
    """Whether all parameters of a trial were chosen."""
    # Another program's may have none.
    return FOLDER in trial.user_attrs or LEASE not in trial.system_attrs


def is_ours(trial: FrozenTrial) -> bool:
    """Whether it is this process that has claimed a trial."""
    held, ours = trial.system_attrs.get(LEASE, {}), lease()
    return all(held.get(key) == ours[key] for key in ("host", "pid", "started"))


def losses(trial: FrozenTrial) -> int:
    """How often the parameters of a trial have been lost, this time included."""
    attrs = trial.system_attrs
    return int(attrs.get(LOSSES, 0) + (attrs.get(END) == LOST))


def why_failed(reasons: Counter[str]) -> list[str]:
    """Reasons in the order of their frequency; those that differ only in numbers are one."""
    kinds: Counter[str] = Counter()
    example: dict[str, str] = {}
    for reason, count in reasons.items():
        kind = re.sub(r"\d[\d.e+-]*", "#", reason)
        kinds[kind] += count
        example.setdefault(kind, reason)
    return [f"{count} x {example[kind]}" for kind, count in kinds.most_common()]
