"""What a sweep shows while it runs: in a terminal, without one, and when the view itself fails."""

import dataclasses
import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import Trial
from waiting import wait_until

from iolaus.errors import printable
from iolaus.study.attributes import FAILED, GROWN
from iolaus.study.queue import Goals, TrialQueue
from iolaus.study.storage import open_storage
from iolaus.study.trials import why_failed
from iolaus.sweep.live import Live, sparkline

SPACE = {"optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True), "name": CategoricalDistribution(["a" * 60 + "\n"])}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand still at second 1000, whatever a busy machine needs for a test."""
    for module in ("iolaus.sweep.live", "iolaus.study.queue"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: 1000.0, time=lambda: 1000.0))


def new_search(folder: Path, n_trials: int = 10, direction: str = "maximize") -> TrialQueue:
    storage = open_storage(str(folder / "journal.log"))
    study = optuna.create_study(
        study_name="study", storage=storage, direction=direction, pruner=optuna.pruners.NopPruner()
    )
    return TrialQueue(study, Goals(n_trials, 1.0), 0, folder)


def begin(search: TrialQueue, **reports: float) -> Trial:
    """A trial that has begun, and has reported values by step."""
    trial = search.claim()
    assert trial is not None
    for name, distribution in SPACE.items():
        trial._suggest(name, distribution)
    for step, value in reports.items():
        trial.report(value, int(step.removeprefix("step")))
    return trial


class Screen:
    """What a terminal of this size shows of what is written to it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows, self.lines, self.row, self.column = columns, rows, [""], 0, 0

    def feed(self, text: str) -> None:
        for part in text.replace("\r\n", "\n").replace("\x1b[J", "\x1b[0J").split("\x1b["):
            if part[:2] == "0J":
                self.lines[self.row :] = [""]
                part = part[2:]
            elif part.partition("A")[0].isdecimal():
                up, _, part = part.partition("A")
                assert int(up) < self.rows  # what has scrolled away cannot be reached
                self.row -= int(up)
            for letter in part:
                if letter == "\n" or len(self.lines[self.row]) == self.columns:
                    self.row += 1
                    self.lines[self.row :] = [""]
                self.lines[self.row] += letter.replace("\n", "")


@contextmanager
def terminal(columns: int, rows: int) -> Iterator[tuple[TextIO, Screen]]:
    """A pseudo-terminal, and its screen as it is once the context ends."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    screen, written = Screen(columns, rows), []

    def read() -> None:
        with suppress(OSError):  # which is Linux's end of file here
            while chunk := os.read(ours, 65536):
                written.append(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    with open(theirs, "w", encoding="utf-8") as out:
        yield out, screen
    thread.join()
    os.close(ours)
    screen.feed(b"".join(written).decode())


def test_the_status_says_what_has_ended_what_runs_what_is_best_and_what_is_left(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    out = io.StringIO()
    live = Live(search, alone=False, out=out)
    search.tell(begin(search), [0.5])
    search.fail(begin(search), FAILED, "ValueError: no")
    begin(search, step1=0.25, step2=0.75)
    live.last_status = -1e9
    live.look()
    status = out.getvalue().splitlines()[-1]
    assert status.startswith("2 of 10 trials finished, 1 failed, about 0:00:")
    assert "1 running" in status
    assert "best 0.5 (trial 0): optimizer.lr=" in status
    assert "worker 0: trial 2: step 2, 0.75: optimizer.lr=" in status


def test_a_total_that_is_raised_is_shown_and_leaves_no_negative_time(tmp_path: Path) -> None:
    search = new_search(tmp_path, n_trials=2)
    out = io.StringIO()
    live = Live(search, alone=False, out=out)
    for value in (0.5, 0.25, 0.75):
        begun = search.study.ask() if value == 0.75 else begin(search)
        search.study.tell(begun, value)
    live.last_status = -1e9
    live.look()
    assert out.getvalue().splitlines()[-1].startswith("3 of 2 trials finished, about 0:00:00 left")
    search.study.set_user_attr(GROWN, 9)
    live.last_status = -1e9
    live.look()
    assert out.getvalue().splitlines()[-1].startswith("3 of 9 trials finished, about 0:00:")


@pytest.mark.parametrize(
    ("begins_for_s", "says"),
    [(1e6, ", about 0:00:09 left, "), (-1, ", no new one begins, "), (90.4, ", new ones begin for another 0:01:30, ")],
)
def test_where_time_ends_a_search_the_status_says_for_how_long_trials_begin(
    tmp_path: Path, begins_for_s: float, says: str
) -> None:
    search = new_search(tmp_path, 10**6 if begins_for_s < 1e6 else 10)
    search.tell(begin(search), [0.5])
    search.goals = dataclasses.replace(search.goals, deadline=1000.0 + begins_for_s)
    out = io.StringIO()
    live = Live(search, alone=False, out=out)
    live.before, live.start = 0, 999.0
    live.last_status = -1e9
    live.look()
    assert says in out.getvalue().splitlines()[-1]


def test_the_curve_of_the_best_begins_with_the_first_trial_of_the_study(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    for value in (0.25, 0.5, 0.125):
        search.tell(begin(search), [value])
    live = Live(search, alone=False, out=io.StringIO())
    assert live.curve == [0.25, 0.5, 0.5]
    assert live.shown.best is not None
    assert live.shown.best.number == 1


def test_each_trial_that_ends_has_one_line(tmp_path: Path) -> None:
    search = new_search(tmp_path, direction="minimize")
    out = io.StringIO()
    with Live(search, alone=False, out=out):
        search.tell(begin(search), [0.5])
        search.tell(begin(search), [0.7])
        search.tell(begin(search), [0.1])
        search.fail(begin(search), FAILED, "ValueError: in\ntwo lines")
    lines = out.getvalue().splitlines()
    assert [line.split(" in ")[0].partition(":")[2].strip() for line in lines[:3]] == [
        "0.5 (best so far)",
        "0.7",
        "0.1 (best so far)",
    ]
    assert re.match(r"trial 3: failed in \d+\.\d s \(ValueError: in two lines\): optimizer.lr=", lines[3])
    assert len(lines) == 4


def test_in_a_terminal_the_status_stays_at_the_foot_however_narrow_it_is(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    with terminal(columns=40, rows=24) as (out, screen):
        live = Live(search, alone=True, out=out)
        assert live.in_place
        one, other = begin(search), begin(search, step1=0.25)
        for _ in range(3):
            live.look()
        search.tell(one, [0.5])
        live.look()
        live.look()
    text = "".join(screen.lines)
    assert text.count("trials finished") == 1
    assert text.count("trial 0: 0.5") == 1
    best = screen.lines.index("  best 0.5 (trial 0)  ▁:")
    assert screen.lines[best + 1].startswith("    optimizer.lr=")  # all of its parameters, in as many rows as it takes
    assert "".join(line.strip() for line in screen.lines[best + 1 : best + 4]).endswith("name=" + "a" * 60)
    assert any(line.startswith(f"  worker 0: trial {other.number}: step 1, 0.25: ") for line in screen.lines)
    assert any(line.endswith("…") for line in screen.lines)
    assert max(map(len, screen.lines)) <= 40


def test_in_a_low_terminal_the_foot_is_no_higher_than_it(tmp_path: Path) -> None:
    search = new_search(tmp_path, n_trials=30)
    for _ in range(20):
        begin(search)
    with terminal(columns=80, rows=10) as (out, screen):
        live = Live(search, alone=True, out=out)
        live.look()
        live.look()
    assert "  and 13 more lines" in screen.lines
    assert len(screen.lines) == 10


def test_at_the_end_the_foot_is_gone(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    with terminal(columns=60, rows=10) as (out, screen), Live(search, alone=True, every_s=0.01, out=out) as live:
        trial = begin(search)
        wait_until(lambda: live.lines > 0)
        search.tell(trial, [1.0])
    assert screen.lines[0].startswith("trial 0: 1 (best so far)")
    assert "finished" not in "".join(screen.lines)


def test_a_view_that_fails_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError("gone")

    search = new_search(tmp_path)
    with Live(search, alone=False, every_s=0.01, out=Closed()) as live:
        search.tell(begin(search), [1.0])
        wait_until(lambda: live.broken)
        live.look()
    assert [record.message for record in caplog.records if record.name == "iolaus.sweep.live"] == [
        "the trials go on, but cannot be shown: OSError: gone"
    ]


def test_a_storage_that_is_away_for_a_while_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    search = new_search(tmp_path)
    out = io.StringIO()
    live = Live(search, alone=False, out=out)
    search.tell(begin(search), [1.0])
    with monkeypatch.context() as context:
        context.setattr(search.study, "get_trials", lambda **_: 1 / 0)
        live.look()
    live.look()
    assert "cannot be shown: ZeroDivisionError" in caplog.text
    assert out.getvalue().startswith("trial 0: 1 (best so far)")


def test_it_looks_no_more_often_than_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    search = new_search(tmp_path)
    show: Any = Live._show

    def counted(self: Live, last: bool) -> None:
        nonlocal looks
        looks += 1
        show(self, last)

    class Pauses(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append((timeout, looks))
            return len(waited) == 4

    waited: list[tuple[float | None, int]] = []
    monkeypatch.setattr(Live, "_show", counted)
    live = Live(search, alone=False, every_s=0.1, out=io.StringIO())
    live.done = Pauses()
    with live:
        live.thread.join()
    assert waited == [(0.1, 0), (0.1, 1), (0.1, 2), (0.1, 3)]
    assert looks == 4  # the last at its end


def test_nothing_in_a_value_moves_the_cursor() -> None:
    assert printable("a\nb\x1b[2Jc\td é") == "a b [2Jc d é"


def test_a_curve_is_drawn_between_the_extremes_of_what_is_shown() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([]) == ""
    long = sparkline([float(i) for i in range(100)])
    assert len(long) == 20
    assert (long[0], long[-1]) == ("▁", "█")


def test_pruned_trials_are_counted_apart(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    out = io.StringIO()
    live = Live(search, alone=False, out=out)
    search.prune(begin(search, step1=0.5))
    live.last_status = -1e9
    live.look()
    assert "1 of 10 trials finished, 1 of them pruned, " in out.getvalue()


def test_each_worker_that_lives_has_a_line(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    out = io.StringIO()
    live = Live(search, alone=False, out=out)
    trial = begin(search, step3=0.5)
    for ended in (False, True):
        if ended:
            search.tell(trial, [1.0])
        live.last_status = -1e9
        live.look()
    working, idle = (line for line in out.getvalue().splitlines() if "trials finished" in line)
    assert "worker 0: trial 0: step 3, 0.5: optimizer.lr=" in working
    assert "worker 0: between two trials" in idle


def test_reasons_that_differ_in_numbers_only_are_one() -> None:
    from collections import Counter

    reasons = Counter({"loss is 3.5 at step 2": 2, "loss is 1e+9 at step 7": 1, "out of memory": 1})
    assert why_failed(reasons) == ["3 x loss is 3.5 at step 2", "1 x out of memory"]
