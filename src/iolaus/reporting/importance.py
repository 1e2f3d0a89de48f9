"""How much each parameter of a study matters, with what that figure is worth."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial

from iolaus.reporting.plotting import parameters
from iolaus.study.trials import complete_trials

ENOUGH = 10
"""The number of complete trials from which on importances are estimated."""
RESAMPLES = 100
"""How often trials are drawn again for the interval of an importance; less often where that would take long."""


@dataclass(frozen=True)
class Importances:
    """What tells the best trials of a study from all its complete ones.

    Args:
        shares: Each parameter's share in percent of the sum, and the ends of its 95 % interval; the least first.
        top: How many are the best.
        complete: How many there are.
        problem: Why nothing can be told; None if it can.
    """

    shares: Mapping[str, tuple[float, float, float]]
    top: int
    complete: int
    problem: str | None

    @property
    def clear(self) -> bool:
        """Whether the most important parameter is told from the others: its interval lies above theirs."""
        *rest, first = self.shares.values()
        return all(first[1] > high for _, _, high in rest)


def importances(study: Study) -> Importances | None:
    """How much each parameter tells the best trials from the others, by PED-ANOVA, with its 95 % interval.

    It is the one evaluator of Optuna that knows parameters which only some trials have (conditional PED-ANOVA,
    https://arxiv.org/abs/2601.20800), and with several objectives it looks at the front. By default it compares the
    best tenth with all, which of few trials would be one or two; here they are at least five. The interval is that of
    as many trials drawn with replacement, again and again (the percentile bootstrap, Efron 1979): it says what other
    trials of the same search might have shown, and not what another search would have.

    Returns:
        None if nothing was searched.
    """
    complete = [trial for trial in complete_trials(study) if all(map(math.isfinite, trial.values))]
    names = parameters(complete)
    if not names:
        return None
    share = max(0.1, min(0.5, 5 / len(complete)))
    problem: str | None = f"{len(complete)} complete trials are too few to tell what matters: it takes {ENOUGH}"
    found: dict[str, tuple[float, float, float]] = {}
    if len(complete) >= ENOUGH:
        try:
            with warnings.catch_warnings(action="ignore"):
                shares = _shares(study, names, share)
                ranges = _bootstrapped(study, complete, names, share)
            found = {name: (shares[name], *ranges[name]) for name in shares}
            problem = None if any(shares.values()) else "no parameter tells the best trials from the others"
        except Exception as error:  # whatever it may raise: what else is told of the study is worth having
            problem = f"what matters could not be told: {type(error).__name__}: {error}"
    least_first = dict(sorted(found.items(), key=lambda item: item[1][0]))
    return Importances(least_first, math.ceil(share * len(complete)), len(complete), problem)


def _shares(study: Study, names: Sequence[str], share: float) -> dict[str, float]:
    """Each parameter's importance in percent of their sum; all are 0 where none matters."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # which takes a second

    evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
    found = get_param_importances(study, evaluator=evaluator, params=list(names), normalize=False)
    total = sum(found.values())
    return {name: 100 * value / total if total else 0.0 for name, value in found.items()}


def _bootstrapped(
    study: Study, complete: Sequence[FrozenTrial], names: Sequence[str], share: float
) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each importance."""
    random = np.random.default_rng(0)
    drawn: list[dict[str, float]] = []
    for _ in range(min(RESAMPLES, max(20, 30_000 // len(complete)))):
        again = optuna.create_study(directions=study.directions)
        trials = [complete[i] for i in random.integers(len(complete), size=len(complete))]
        again.add_trials(trials)
        known = [name for name in names if any(name in trial.params for trial in trials)]
        drawn.append(_shares(again, known, share))

    def end(name: str, percentile: float) -> float:
        return float(np.percentile([shares.get(name, 0.0) for shares in drawn], percentile))

    return {name: (end(name, 2.5), end(name, 97.5)) for name in names}
