"""Facts about single trials: their outcome, whether they are alive, and the rule by which lost ones are retried."""

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


def outcome_of(trial: FrozenTrial) -> str:
    """Return the outcome of a trial: the name of its state, or ``failed``, ``lost``, ``interrupted`` or ``surplus``.

    A loss that counts, since its parameters are not retried, is a failure.
    """
    if trial.state != TrialState.FAIL:
        return trial.state.name.lower()
    end = str(trial.system_attrs.get(END, FAILED))
    return FAILED if end == LOST and not needs_retry(trial) else end


def objectives(study: Study) -> list[str]:
    """Return the names of the objectives: those that the study gives them, or ``value``."""
    several = len(study.directions) > 1
    return study.metric_names or [f"value {i}" if several else "value" for i in range(len(study.directions))]


def sign_of(study: Study, objective: int) -> int:
    """Return 1 if an objective is to be minimized, -1 if it is to be maximized."""
    return -1 if study.directions[objective] == StudyDirection.MAXIMIZE else 1


def values_of(trials: Sequence[FrozenTrial], objective: int) -> NDArray[np.float64]:
    """Return the trials' values of an objective, which may be infinite."""
    return np.array([trial.values[objective] for trial in trials], float)


MAX_LOSSES = 3
"""The number of the loss that counts: parameters whose trials are always killed cannot keep a study from ending."""


def keeps_constraints(trial: FrozenTrial) -> bool:
    """Return whether a trial keeps all constraints."""
    return all(value <= 0 for value in trial.constraints.values())


def needs_retry(trial: FrozenTrial) -> bool:
    """Return whether a trial ended without telling anything about its parameters, so that they need another trial."""
    end = trial.system_attrs.get(END)
    return trial.state == TrialState.FAIL and (end == INTERRUPTED or (end == LOST and losses(trial) < MAX_LOSSES))


def is_alive(trial: FrozenTrial) -> bool:
    """Return whether a running trial can still end by itself."""
    if LEASE in trial.system_attrs:
        return holds(trial.system_attrs[LEASE])
    # Another program's, which has no lease, or one that has just been taken from the queue.
    assert trial.datetime_start is not None
    return time.time() < trial.datetime_start.timestamp() + LEASE_S


def has_all_params(trial: FrozenTrial) -> bool:
    """Return whether all parameters of a trial were chosen."""
    # Another program's trial has no lease, and may have no parameters.
    return FOLDER in trial.user_attrs or LEASE not in trial.system_attrs


def is_ours(trial: FrozenTrial) -> bool:
    """Return whether this process has claimed a trial."""
    held, ours = trial.system_attrs.get(LEASE, {}), lease()
    return all(held.get(key) == ours[key] for key in ("host", "pid", "started"))


def losses(trial: FrozenTrial) -> int:
    """Return the number of times that a trial's parameters have been lost, including its own loss."""
    attrs = trial.system_attrs
    return int(attrs.get(LOSSES, 0) + (attrs.get(END) == LOST))


def why_failed(reasons: Counter[str]) -> list[str]:
    """Return the reasons of failures, the most frequent first, each with its count; numbers in them do not matter."""
    kinds: Counter[str] = Counter()
    example: dict[str, str] = {}
    for reason, count in reasons.items():
        kind = re.sub(r"\d[\d.e+-]*", "#", reason)
        kinds[kind] += count
        example.setdefault(kind, reason)
    return [f"{count} x {example[kind]}" for kind, count in kinds.most_common()]
