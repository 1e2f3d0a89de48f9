"""All facts about the metrics that are known by name: which direction is better, their bounds, how they are written."""

import re
from dataclasses import dataclass
from typing import Literal

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Form:
    """A way to write values.

    Args:
        spec: A format specification, as `format` takes it.
        factor: A value is multiplied by it.
        unit: Follows the number, with a space before it if there is to be one.
    """

    spec: str = ".6g"
    factor: float = 1.0
    unit: str = ""

    def __call__(self, value: float, sign: str = "") -> str:
        """Return a value with its unit; with ``+`` as `sign` also a positive one begins with its sign."""
        return f"{self.number(value, sign)}{self.unit}"

    def number(self, value: float, sign: str = "") -> str:
        """Return a value without its unit."""
        return f"{self.factor * value:{sign}{self.spec}}"

    def axis(self, name: str) -> str:
        """Return the name of an axis of such numbers, with their unit."""
        return f"{name} ({self.unit.strip()})" if self.unit else name


SIX_DIGITS = Form()
PERCENT = Form(".2f", 100, " %")


@dataclass(frozen=True)
class Metric:
    """Facts about a metric.

    Args:
        direction: The direction in which it is better; None if that is not known.
        low: The lower bound; values without an upper bound lie above it.
        high: The upper bound; None if there is none.
        shown: How a value is written where one is told of a run.
        compared: How a value is written where it is told from others of its kind, as an objective.
    """

    direction: Direction | None = None
    low: float | None = None
    high: float | None = None
    shown: Form = SIX_DIGITS
    compared: Form = SIX_DIGITS


METRICS = {
    "accuracy": Metric("maximize", 0, 1, PERCENT, PERCENT),
    "loss": Metric("minimize", 0, shown=Form(".4f")),
    "fit_s": Metric("minimize", 0, shown=Form(".1f", unit=" s")),
    "params": Metric("minimize", 0, shown=Form(",.0f")),
    "images_per_s": Metric("maximize", 0, shown=Form(",.0f", unit=" images/s")),
}
"""The known metrics by the last part of their names."""
UNKNOWN = Metric()


def of(name: str) -> Metric:
    """Return the facts about a metric, which are looked up by the last part of its name.

    Args:
        name: Such as ``val/accuracy``, or another app's ``accuracy`` or ``val_accuracy``.
    """
    return next((it for last, it in METRICS.items() if re.search(rf"(?<![^\W_]){last}$", name)), UNKNOWN)
