"""The importance of each parameter, with a confidence interval."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from iolaus.reporting.plotting import parameters

ENOUGH = 10
"""The number of complete trials from which on importances are estimated."""
RESAMPLES = 100
"""The number of bootstrap samples behind an interval; fewer where that would take long."""


@dataclass(frozen=True)
class Importances:
    """The importance of each parameter: how far it tells the best trials of a study from all complete ones.

    Args:
        shares: Each parameter's share in percent of the sum, and the ends of its 95 % interval; the least first.
        top: The number of best trials.
        complete: The number of complete trials.
        problem: Why importances could not be estimated; None if they were.
    """

    shares: Mapping[str, tuple[float, float, float]]
    top: int
    complete: int
    problem: str | None

    @property
    def clear(self) -> bool:
        """True if the interval of the most important parameter lies above all others."""
        *rest, first = self.shares.values()
        return all(first[1] > high for _, _, high in rest)


def estimate(complete: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> Importances | None:
    """Estimate by PED-ANOVA how far each parameter tells the best trials from the others, with 95 % intervals.

    PED-ANOVA is the one evaluator of Optuna that supports parameters which only some trials have (conditional
    PED-ANOVA, https://arxiv.org/abs/2601.20800); with several objectives it looks at the Pareto front. By default it
    compares the best tenth with all, which of few trials would be one or two; here the best are at least five. The
    interval is a percentile bootstrap (Efron 1979): it says what other trials of the same search might have shown, not
    what another search would have.

    Args:
        complete: The complete trials of a study; those with an infinite value are left out.
        directions: The directions of its objectives.

    Returns:
        None if nothing was searched.
    """
    finite = [trial for trial in complete if all(map(math.isfinite, trial.values))]
    names = parameters(finite)
    if not names:
        return None
    share = max(0.1, min(0.5, 5 / len(finite)))
    problem: str | None = f"{len(finite)} complete trials are too few to tell what matters: it takes {ENOUGH}"
    found: dict[str, tuple[float, float, float]] = {}
    if len(finite) >= ENOUGH:
        try:
            with warnings.catch_warnings(action="ignore"):
                shares = _shares(study_in_memory(finite, directions), names, share)
                intervals = _intervals(finite, directions, names, share)
            found = {name: (shares[name], *intervals[name]) for name in shares}
            problem = None if any(shares.values()) else "no parameter tells the best trials from the others"
        except Exception as error:  # whatever it may raise: what else is told of the study is worth having
            problem = f"what matters could not be told: {type(error).__name__}: {error}"
    least_first = dict(sorted(found.items(), key=lambda item: item[1][0]))
    return Importances(least_first, math.ceil(share * len(finite)), len(finite), problem)


def study_in_memory(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> Study:
    """Return a study of these trials, numbered from 0, for those functions of Optuna that take nothing else."""
    study = optuna.create_study(directions=directions)
    study.add_trials(trials)
    return study


def _shares(study: Study, names: Sequence[str], share: float) -> dict[str, float]:
    """Return each parameter's importance in percent of their sum; all are 0 where none matters."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # which takes a second

    evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
    found = get_param_importances(study, evaluator=evaluator, params=list(names), normalize=False)
    total = sum(found.values())
    return {name: 100 * value / total if total else 0.0 for name, value in found.items()}


def _intervals(
    complete: Sequence[FrozenTrial], directions: Sequence[StudyDirection], names: Sequence[str], share: float
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each importance."""
    random = np.random.default_rng(0)
    drawn: list[dict[str, float]] = []
    for _ in range(min(RESAMPLES, max(20, 30_000 // len(complete)))):
        trials = [complete[i] for i in random.integers(len(complete), size=len(complete))]
        known = [name for name in names if any(name in trial.params for trial in trials)]
        drawn.append(_shares(study_in_memory(trials, directions), known, share))

    def end(name: str, percentile: float) -> float:
        return float(np.percentile([shares.get(name, 0.0) for shares in drawn], percentile))

    return {name: (end(name, 2.5), end(name, 97.5)) for name in names}
