"""Elements of matplotlib figures: axes for parameters and values, dots on them, and text that fits its place."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from iolaus.errors import printable
from iolaus.search_space.keys import BRANCH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
WIDTH, DPI = 10.0, 110
"""The width of a picture in inches, and its dots per inch."""
SMALL, TEXT = 8, 9
"""Font sizes in points: of ticks, and of the names of axes."""
FAR = 5.0
"""A value lies beyond its axis if it is so many times farther from the best than the median is."""


@dataclass(frozen=True)
class Scale:
    """An axis for a parameter, an objective or any other number.

    Args:
        name: Written beside the axis.
        low: The first value on it.
        high: The last value on it.
        log: True for a logarithmic axis.
        whole: True if there are only whole numbers.
        choices: The choices of a categorical parameter, which lie at 0, 1, ...
    """

    name: str
    low: float
    high: float
    log: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()

    @classmethod
    def of_parameter(cls, name: str, trials: Sequence[FrozenTrial]) -> "Scale":
        """Return the axis of a parameter: all values that it could have had in any of these trials."""
        domains = [trial.distributions[name] for trial in trials if name in trial.distributions]
        choices = [c for d in dict.fromkeys(domains) if isinstance(d, CategoricalDistribution) for c in d.choices]
        if choices:
            names = tuple(dict.fromkeys(map(str, choices)))
            return cls(name, 0, len(names) - 1, choices=names)
        numeric = [domain for domain in domains if isinstance(domain, FloatDistribution | IntDistribution)]
        low, high = min(domain.low for domain in numeric), max(domain.high for domain in numeric)
        return cls(name, low, high, numeric[-1].log, all(isinstance(domain, IntDistribution) for domain in numeric))

    @property
    def span(self) -> tuple[float, float]:
        """The first and the last value."""
        return self.low, self.high

    def places(self, trials: Sequence[FrozenTrial]) -> Floats:
        """Return the places of trials on the axis of a parameter, in its own unit; NaN for those that lack it."""
        return np.array([self._place(trial.params.get(self.name)) for trial in trials])

    def share(self, places: ArrayLike) -> Floats:
        """Return the share of the axis that lies before each of these places."""
        low, high = self._warp(self._ends())
        return (self._warp(np.clip(places, *self._ends())) - low) / (high - low)

    def arrange(self, axes: "Axes", inches: float, tilt: bool = True) -> None:
        """Make this the horizontal axis.

        Args:
            axes: Axes of matplotlib.
            inches: The length of the axis.
            tilt: True if names of choices may be turned where they are too long.
        """
        axes.set_xscale("log" if self.log else "linear")
        axes.set_xlim(*self._ends())
        places, labels, angle = self._choices(inches, tilt) if self.choices else (*self._numbers(inches), 0)
        ends: dict[str, Any] = {"ha": "right", "va": "top", "rotation_mode": "anchor"} if angle == 40 else {}
        axes.set_xticks(places, labels, fontsize=SMALL, rotation=angle, **ends)
        axes.minorticks_off()
        axes.set_xlabel(label(self.name, inches + 0.4), fontsize=TEXT)

    def arrange_y(self, axes: "Axes", named: bool = True) -> None:
        """Make this the vertical axis, which is two inches long or more."""
        margin = 0.06 * (self.high - self.low)
        axes.set_ylim(self.low - margin, self.high + margin)
        axes.set_yticks(*self._numbers(2), fontsize=SMALL)
        if named:
            axes.set_ylabel(label(self.name, 2.2), fontsize=TEXT)

    def _place(self, value: Any) -> float:
        if self.choices and str(value) in self.choices:
            return self.choices.index(str(value))
        return math.nan if self.choices or value is None else float(value)

    def _ends(self) -> tuple[float, float]:
        if self.choices:
            return -0.5, len(self.choices) - 0.5
        if self.log:
            margin = (self.high / self.low) ** 0.03
            return self.low / margin, self.high * margin
        margin = 0.03 * (self.high - self.low)
        return self.low - margin, self.high + margin

    def _warp(self, places: ArrayLike) -> Floats:
        return np.log(places) if self.log else np.asarray(places, float)

    def _numbers(self, inches: float) -> tuple[list[float], list[str]]:
        """Return as many round numbers as can be written side by side, and their texts."""
        for most in range(8, 1, -1):
            ticks = self._round(most)
            labels = numbers(ticks)
            middles = inches * self.share(ticks)
            widths = np.array([width(label, SMALL) for label in labels])
            if (np.diff(middles) > (widths[1:] + widths[:-1]) / 2 + 0.1).all():
                break
        return ticks, labels

    def _round(self, most: int) -> list[float]:
        """Return round numbers on the axis: at least two and at most `most` if that is possible."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        if self.log:
            found = [
                LogLocator(subs=subs, numticks=most).tick_values(self.low, self.high)
                for subs in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0))
            ]
            inside = [
                [float(tick) for tick in ticks if self.low * 0.999 <= tick <= self.high * 1.001] for ticks in found
            ]
            fitting = [ticks for ticks in inside if 2 <= len(ticks) <= most]
            if fitting:
                return max(fitting, key=len)
        ticks = MaxNLocator(most, integer=self.whole, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)
        margin = 1e-6 * (self.high - self.low)
        return [
            float(tick)
            for tick in ticks.tick_values(self.low, self.high)
            if self.low - margin <= tick <= self.high + margin
        ]

    def _choices(self, inches: float, tilt: bool) -> tuple[list[int], list[str], int]:
        """Return the places of the choices, their names as far as there is room, and the angle of the text."""
        room = inches / len(self.choices)
        longest = max(width(choice, SMALL) for choice in self.choices)
        if longest < room - 0.08 or not tilt:
            every, angle = math.ceil((min(longest, 0.9) + 0.08) / room), 0
            most = every * room - 0.08
        else:
            every, angle, most = math.ceil(0.14 / room), 40 if room > 0.25 else 90, 1.0
        shown = [fitted(choice, most, SMALL) if k % every == 0 else "" for k, choice in enumerate(self.choices)]
        return list(range(len(shown))), shown, angle


def canvas(height: float, layout: Literal["constrained"] | None = "constrained") -> "Figure":
    """Return an empty figure of this height in inches, which needs no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def legend(axes: "Axes") -> None:
    """Draw a legend above the axes at the right."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=9, fontsize=SMALL, frameon=False, borderaxespad=0.2)


def dots(axes: "Axes", xs: Floats, ys: Floats, up: Scale, across: Scale | None = None, **style: Any) -> None:
    """Draw dots; those beyond an axis are triangles at its edge.

    Args:
        axes: Axes of matplotlib.
        xs: float (N,).
        ys: float (N,).
        up: The vertical axis.
        across: The horizontal axis, if dots may lie beyond it.
        style: Passed on to ``Axes.scatter``, with N numbers as ``c`` if the dots are coloured by them.
    """
    style = {"s": 16, "linewidths": 0, **style}
    by_number = style.pop("c", None)
    left, right = (-math.inf, math.inf) if across is None else across.span
    markers = np.select([ys > up.high, ys < up.low, xs > right, xs < left], list("^v><"), "o")
    for marker in "o^v><":
        which = markers == marker
        if which.any():
            if marker != "o" and "label" in style:
                style["label"] = "beyond the axis"
            colors = {} if by_number is None else {"c": by_number[which]}
            axes.scatter(xs[which].clip(left, right), ys[which].clip(*up.span), marker=marker, **colors, **style)


def parameters(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the names of the parameters that could differ between these trials, in the order of appearance."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    scales = [Scale.of_parameter(name, trials) for name in names]
    return [scale.name for scale in scales if scale.low < scale.high]


def limits(values: Floats, sign: int, also: float | None = None, far: float = FAR) -> tuple[float, float]:
    """Return the ends of an axis of values, such that a few far worse ones do not press the others flat.

    Args:
        values: Any values, also infinite ones.
        sign: 1 if smaller values are better, -1 if greater ones are.
        also: A value that must be on the axis.
        far: The worst value on the axis is at most so many times farther from the best than the median is.
    """
    finite = np.sort(sign * values[np.isfinite(values)])
    if not len(finite):
        return 0.0, 1.0
    best, median, worst = finite[0], finite[len(finite) // 2], finite[-1]
    room = far * (median - best)
    if len(finite) >= 10 and 0 < 2 * room < worst - best:
        worst = finite[finite <= best + room][-1]
    ends = [sign * float(best), sign * float(worst)] + ([] if also is None else [also])
    low, high = min(ends), max(ends)
    margin = 0.0 if high > low else 0.1 * abs(low) or 1.0
    return low - margin, high + margin


def numbers(values: Sequence[float]) -> list[str]:
    """Return numbers as text, as short as it can be while they are still told apart."""
    for digits in range(3, 17):
        texts = [_number(value, digits) for value in values]
        if len(set(texts)) == len(texts) and all(
            math.isclose(float(text), value, rel_tol=1e-6, abs_tol=1e-300)
            for text, value in zip(texts, values, strict=True)
        ):
            break
    return texts


def _number(value: float, digits: int) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return str(np.format_float_positional(value, digits, fractional=False, trim="-"))
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def label(name: str, inches: float) -> str:
    """Return the name of a parameter, shortened to this many inches, and below it the branch that it belongs to."""
    key, _, branch = name.lstrip("+").partition(BRANCH)
    lines = [key, f"({branch})"] if branch else [key]
    return "\n".join(fitted(line, inches, TEXT) for line in lines)


def fitted(text: str, inches: float, size: float) -> str:
    """Return a text in one line, without its middle if it is too long: numbers often stand at the end."""
    text = printable(text)
    kept = len(text)
    shown = text
    while width(shown, size) > inches and kept > 2:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}\u2026{text[len(text) - kept // 2 :]}"
    return plain(shown)


def plain(text: str) -> str:
    """Return a text in one line that matplotlib shows as it is: a dollar would begin a formula.

    A letter that the font lacks would cause a warning, so it is replaced.
    """
    return "".join(letter if _advance(letter) else "?" for letter in printable(text)).replace("$", r"\$")


def width(text: str, size: float) -> float:
    """Return the width of a text in inches, at a font size in points."""
    return sum(_advance(letter) or _advance("?") for letter in text) * size / 72


@functools.cache
def _advance(letter: str) -> float:
    """Return the width of a letter as a share of the font size; 0 if the font lacks it."""
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.textpath import text_to_path

    if not get_font(findfont(FontProperties())).get_char_index(ord(letter)):
        return 0.0
    return float(text_to_path.get_text_width_height_descent(letter, FontProperties(size=100), ismath=False)[0]) / 100
