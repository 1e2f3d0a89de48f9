"""Means over seeds with confidence intervals, tests of their differences, and how both are written.

SciPy is imported only once it is needed.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iolaus import metric_table
from iolaus.errors import InputError
from iolaus.metric_table import SIX_DIGITS, Form

LEVEL = 0.95
"""The confidence level of intervals; the significance level of tests is one less this."""


@dataclass(frozen=True)
class Mean:
    """A mean with its confidence interval."""

    mean: float
    interval: float | None
    """Half the width of the interval at `LEVEL`, by Student's t; None for fewer than two values."""
    n: int

    def in_words(self, form: Form = SIX_DIGITS) -> str:
        """Return it as in ``99.06 ± 0.03 % (n = 5)``; beside a mean of six digits its interval has two."""
        half = Form(".2g") if form == SIX_DIGITS else form
        interval = "" if self.interval is None else f" ± {half.number(self.interval)}"
        return f"{form.number(self.mean)}{interval}{form.unit} (n = {self.n})"


@dataclass(frozen=True)
class Difference(Mean):
    """A mean of differences, and the probability that it is as far from zero by chance."""

    p: float | None
    """From the two-sided t-test; None for fewer than two values, and if all agree, which says nothing of the noise."""

    @property
    def significant(self) -> bool:
        """True if the test tells it from zero at `LEVEL`."""
        return self.p is not None and self.p < 1 - LEVEL


def mean_of(values: Sequence[float]) -> Mean:
    """Return the mean of independent values, of which there is at least one."""
    mean, n = statistics.fmean(values), len(values)
    return Mean(mean, None if n < 2 else _half_width(statistics.stdev(values) / math.sqrt(n), n - 1), n)


def paired(values: Mapping[int, float], others: Mapping[int, float]) -> Difference:
    """Return by how much values exceed others, seed by seed, by the paired t-test.

    Args:
        values: By seed.
        others: By seed; a seed that only one of them has is left out.
    """
    seeds = sorted(values.keys() & others.keys())
    differences = [values[seed] - others[seed] for seed in seeds]
    if len(differences) < 2:
        return Difference(differences[0] if differences else math.nan, None, len(differences), None)
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
    return _difference(mean, error, len(differences) - 1, len(differences))


def unpaired(values: Sequence[float], others: Sequence[float]) -> Difference:
    """Return by how much the mean of values exceeds that of others, by Welch's t-test: their variances may differ."""
    mean, n = statistics.fmean(values) - statistics.fmean(others), min(len(values), len(others))
    if n < 2:
        return Difference(mean, None, n, None)
    parts = [statistics.variance(sample) / len(sample) for sample in (values, others)]
    below = sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, (values, others), strict=True))
    freedom = sum(parts) ** 2 / below if below > 0 else float(n - 1)  # Welch and Satterthwaite
    return _difference(mean, math.sqrt(sum(parts)), freedom, n)


def format_value(value: float, objective: str, sign: str = "") -> str:
    """Return a value of an objective in words; accuracies in percent."""
    return metric_table.of(objective).compared(value, sign)


def format_mean(row: Mapping[str, Any], objective: str) -> str:
    """Return a mean with its interval and n, which a row has as ``asdict`` gives them; accuracies in percent."""
    return Mean(row["mean"], row["interval"], row["n"]).in_words(metric_table.of(objective).compared)


def format_difference(row: Mapping[str, Any], objective: str) -> str:
    """Return a difference with its interval; accuracies in percent."""
    form = metric_table.of(objective).compared
    half = row["difference_interval"]
    interval = "" if half is None else f" ± {form.number(half)}"
    return f"{form.number(row['difference'], '+')}{interval}{form.unit}"


def _difference(mean: float, error: float, freedom: float, n: int) -> Difference:
    if error <= 1e-12 * abs(mean):  # always the same: a few values on a grid, such as accuracies, may agree by chance
        return Difference(mean, 0.0, n, 1.0 if mean == 0 else None)
    p = 2 * float(_student(freedom).sf(abs(mean) / error))
    return Difference(mean, _half_width(error, freedom), n, p)


def _half_width(error: float, freedom: float) -> float:
    return float(_student(freedom).ppf((1 + LEVEL) / 2)) * error


def _student(freedom: float):  # type: ignore[no-untyped-def]  # scipy has no types
    try:
        from scipy import stats
    except ImportError as error:
        raise InputError("intervals need SciPy: install it") from error
    return stats.t(freedom)
