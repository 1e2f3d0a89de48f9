"""The pictures of a report: to add one, write a function that draws it and give it a row in `PICTURES`."""

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iolaus.reporting import charts, intervals
from iolaus.reporting.snapshot import Snapshot
from iolaus.reporting.timeline import timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _always(snapshot: Snapshot) -> bool:
    return True


def _of_a_search(snapshot: Snapshot) -> bool:
    """Return True unless settings were compared, in which case parameters are only places in a list."""
    return snapshot.comparison is None


@dataclass(frozen=True)
class Picture:
    """A picture that a report may show.

    Args:
        name: The name of its file, without ``.png``.
        title: Its heading on the page.
        caption: How to read it, in a sentence.
        draw: Returns the matplotlib figure, or None if there is nothing to show.
        belongs: Returns False for a study in whose report it has no place.
    """

    name: str
    title: str
    caption: str
    draw: "Callable[[Snapshot], Figure | None]"
    belongs: Callable[[Snapshot], bool] = _of_a_search

    def png(self, snapshot: Snapshot) -> bytes | None:
        """Return the picture as a PNG file; None if there is nothing to show."""
        figure = self.draw(snapshot) if self.belongs(snapshot) else None
        if figure is None:
            return None
        file = io.BytesIO()
        figure.savefig(file, format="png")
        return file.getvalue()


PICTURES = (
    Picture(
        "finals",
        "Finals",
        "Each row is one of the best settings, run again with seeds that no trial had: the bar is the 95 % interval of "
        "its mean, the thin marks are its runs, and the diamond is what its best trial had been in the search.",
        intervals.finals,
        _always,
    ),
    Picture(
        "effects",
        "What each setting is worth",
        "Each row is a setting less the command as it is, seed by seed: where the bar reaches zero, what was changed "
        "cannot be told from nothing.",
        intervals.effects,
        _always,
    ),
    Picture(
        "history",
        "History",
        "Each dot is a complete trial, the line is the best value until then, and the marks below are trials that "
        "ended without a value.",
        charts.history,
    ),
    Picture(
        "pareto",
        "Trade-offs",
        "Each dot is a complete trial: no trial is better than an orange one in all objectives.",
        charts.pareto,
    ),
    Picture(
        "importances",
        "What matters",
        "The longer the bar, the more the values of a parameter in the best trials differ from those in all; what "
        "parameters do only together does not show.",
        charts.importances,
    ),
    Picture(
        "parallel",
        "Parameters of all trials",
        "Each line is a complete trial, from its parameters down to its value: the darker the better, the best is "
        "orange, and a trial that lacks a parameter passes at the left.",
        charts.parallel,
    ),
    Picture(
        "slices",
        "Value over each parameter",
        "Each dot is a complete trial, later ones are darker: if the best (circled) is at the end of a range, a wider "
        "one may hold a better one.",
        charts.slices,
    ),
    Picture(
        "intermediate",
        "Intermediate values",
        "Each line is what a trial reported while it ran: solid if it is complete, dashed with a cross at its end if "
        "it is not, black if it is the best.",
        charts.intermediate,
    ),
    Picture(
        "timeline",
        "Timeline",
        "Each row is a process and each bar a trial that it ran: where a row is empty, the process did nothing.",
        timeline,
        _always,
    ),
)
"""All pictures, in the order of the page."""


def draw_all(snapshot: Snapshot) -> dict[Picture, bytes | None]:
    """Return each picture as a PNG file, None if it has nothing to show; no picture at all without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return {}
    return {picture: picture.png(snapshot) for picture in PICTURES}
