"""What the benchmarks share: taking turns, and one table with its JSON beside it."""

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Rows = list[tuple[str, ...]]


def take_turns(candidates: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate, measured A B A B ..., so that a machine that slows down slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, measure in candidates.items():
            seconds[name].append(measure())
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median of the ratios of neighbours in time."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that each benchmark has, to which it may add its own."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--rounds", type=int, default=rounds, help="measurements of each candidate (default: %(default)s)"
    )
    options.add_argument("--json", type=Path, help="also write the figures here")
    return options


def arguments(description: str | None, rounds: int) -> argparse.Namespace:
    """What was given for the options that each benchmark has."""
    return parser(description, rounds).parse_args()


def report(title: str, rows: Sequence[tuple[str, ...]], figures: Mapping[str, object], path: Path | None) -> None:
    """Print a table, its first row the heading, and write the figures as JSON."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print(f"\n{title}  ({platform.machine()}, Python {platform.python_version()})\n")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if path:
        path.write_text(json.dumps({"title": title, **figures}, indent=2))
