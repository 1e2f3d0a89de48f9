import base64
import importlib.util
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
from conftest import ROOT, Program
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from iolaus.reporting import page, pictures
from iolaus.reporting.snapshot import Snapshot
from iolaus.study import attributes
from iolaus.study.storage import open_storage

NASTY = "<script>alert('x')</script> & \"more\"\n"


def new_study(*trials: FrozenTrial, name: str = "mine", directions: Sequence[str] = ("maximize",)) -> Study:
    study = optuna.create_study(study_name=name, directions=list(directions))
    study.add_trials(trials)
    return study


def complete(*values: float) -> FrozenTrial:
    x = values[0] % 1
    attrs = {"folder": f"trial{x:g}"}
    space = {"+optimizer.momentum": FloatDistribution(0, 1)}
    return create_trial(values=values, params={"+optimizer.momentum": x}, distributions=space, user_attrs=attrs)


def failed(reason: str = "ValueError: no", end: str = "failed", losses: int = 0) -> FrozenTrial:
    attrs = {"iolaus:end": end, "iolaus:losses": losses}
    return create_trial(state=TrialState.FAIL, user_attrs={"reason": reason}, system_attrs=attrs)


class Reader(HTMLParser):
    """What a page shows and what it loads; its elements must be closed in their order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(path.read_text())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, which take their time."""
    monkeypatch.setattr(pictures, "PICTURES", ())


def read(study: Study, folder: Path) -> Reader:
    return Reader(page.write(Snapshot.of(study), folder))


def know_command(study: Study, command: str) -> None:
    """Keep in a study what its sweep keeps: the command that trains the best trial once more."""
    best = Snapshot.of(study).best[0]
    study.set_user_attr(attributes.REPORT, {"trial": best.number, "command": command, "target": None})


@pytest.mark.usefixtures("words_only")
def test_the_page_names_counts_best_and_the_command_that_trains_it_once_more(tmp_path: Path) -> None:
    ends = [
        failed(),
        failed(end="lost"),
        failed(end="lost", losses=2),
        failed(end="interrupted"),
        failed(end="surplus"),
    ]
    study = new_study(complete(0.25), complete(0.75), create_trial(state=TrialState.PRUNED), *ends)
    know_command(study, "python src/train.py 'a=<b>'")
    path = page.write_again(study, tmp_path)
    assert path == tmp_path / "report.html"
    text = Reader(path).text
    assert text.startswith("mine mine 7 trials: 2 complete, 1 pruned, 2 failed, 1 lost, 1 interrupted.")
    assert "Best trial: 1 value 0.75" in text
    assert f"folder {tmp_path / 'trial0.75'} optimizer.momentum 0.75" in text
    assert "Once more: python src/train.py 'a=<b>'" in text


@pytest.mark.parametrize(("direction", "first"), [("minimize", "1"), ("maximize", "2")])
@pytest.mark.usefixtures("words_only")
def test_the_table_has_the_ten_best_trials_in_order(tmp_path: Path, direction: str, first: str) -> None:
    values = [0.5, 0.1, 0.9, *(0.2 + i / 100 for i in range(20))]
    study = new_study(*map(complete, values), failed(), directions=[direction])
    head, *rows = read(study, tmp_path).rows
    assert head == ["trial", "value", "seconds", "optimizer.momentum", "folder"]
    assert [float(row[1]) for row in rows] == pytest.approx(sorted(values, reverse=direction == "maximize")[:10])
    assert rows[0][0] == first
    assert rows[0][3:] == [rows[0][1], f"trial{rows[0][1]}"]


@pytest.mark.usefixtures("words_only")
def test_what_breaks_a_constraint_is_not_among_the_best(tmp_path: Path) -> None:
    study = new_study(complete(0.5), create_trial(value=0.9, constraints={"size": 1.0}))
    assert [row[0] for row in read(study, tmp_path).rows] == ["trial", "0"]


def test_the_front_is_the_table_of_several_objectives(tmp_path: Path) -> None:
    study = new_study(complete(0.5, 1.0), complete(0.5, 2.0), complete(0.9, 3.0), directions=["maximize", "minimize"])
    reader = read(study, tmp_path)
    assert [row[:3] for row in reader.rows] == [["trial", "value 0", "value 1"], ["0", "0.5", "1"], ["2", "0.9", "3"]]
    assert "The 2 trials that no other beats in all objectives" in reader.text
    assert "Trade-offs" in reader.text


@pytest.mark.usefixtures("words_only")
def test_reasons_of_failures_come_by_frequency(tmp_path: Path) -> None:
    study = new_study(failed("out of memory"), *(failed(f"loss is nan at step {i}") for i in range(3)), complete(0.5))
    text = read(study, tmp_path).text
    assert "Why trials failed 3 x loss is nan at step 0 1 x out of memory" in text


@pytest.mark.usefixtures("words_only")
def test_more_reasons_than_there_is_room_for_are_counted(tmp_path: Path) -> None:
    text = read(new_study(*(failed("x" * n) for n in range(1, 14))), tmp_path).text
    assert "and 3 other reasons" in text
    assert "x" * 11 not in text


def test_nothing_in_a_study_becomes_part_of_the_page(tmp_path: Path) -> None:
    space = {NASTY: CategoricalDistribution([NASTY, "b"])}
    trial = create_trial(value=0.5, params={NASTY: NASTY}, distributions=space, user_attrs={"folder": NASTY})
    study = new_study(trial, failed(NASTY), name=NASTY)
    know_command(study, NASTY)
    reader = read(study, tmp_path)
    assert "script" not in reader.tags
    assert reader.text.count("<script>alert('x')</script> & \"more\"") == 10


def test_the_page_needs_nothing_else_and_holds_the_pictures_that_lie_beside_it(tmp_path: Path) -> None:
    study = new_study(*(complete(i / 20) for i in range(20)))
    reader = read(study, tmp_path)
    files = {path.read_bytes() for path in (tmp_path / "report").iterdir()}
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"history.png", "importances.png", "parallel.png", "slices.png", "timeline.png"}
    held = [address.removeprefix("data:image/png;base64,") for address in reader.loaded]
    assert {base64.b64decode(data, validate=True) for data in held} == files
    assert len(held) == 5
    content = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?:|url\(|@import", content)
    assert {"img", "figcaption"} <= reader.tags


def test_a_picture_of_an_earlier_report_that_has_nothing_to_show_any_more_is_gone(tmp_path: Path) -> None:
    read(new_study(complete(0.5, 1.0), directions=["maximize", "minimize"]), tmp_path)
    assert (tmp_path / "report" / "pareto.png").exists()
    reader = read(new_study(complete(0.5)), tmp_path)
    assert not (tmp_path / "report" / "pareto.png").exists()
    assert "Trade-offs" not in reader.text


@pytest.mark.parametrize(
    ("trials", "says"),
    [
        ([], "0 trials. No trial is complete, so there is no best one."),
        ([failed()], "No trial is complete, so there is no best one. Why trials failed 1 x ValueError: no"),
        ([create_trial(state=TrialState.RUNNING)], "1 trial: 1 running."),
        ([create_trial(state=TrialState.WAITING)], "1 trial: 1 waiting."),
        ([create_trial(value=0.5)], "Best trial: 0 value 0.5"),
        ([create_trial(value=math.inf)], "Best trial: 0 value inf"),
        ([create_trial(value=0.5, constraints={"size": 1.0})], "No complete trial keeps all constraints"),
    ],
    ids=["none", "failed", "running", "waiting", "one", "infinite", "constrained"],
)
@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "maximize"]])
def test_a_study_without_much_to_show_has_a_page_that_says_so(
    tmp_path: Path, trials: list[FrozenTrial], says: str, directions: list[str]
) -> None:
    study = optuna.create_study(study_name="mine", directions=directions)
    for trial in trials:
        several = len(directions) > 1 and trial.values is not None
        study.add_trial(create_trial(values=trial.values * 2, constraints=trial.constraints) if several else trial)
    text = read(study, tmp_path).text
    assert says in text or (len(directions) > 1 and says.startswith("Best trial") and "The 1 trials that" in text)


def test_without_matplotlib_there_is_a_page_without_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name))
    reader = read(new_study(complete(0.5)), tmp_path)
    assert "There are no pictures, since matplotlib is not installed." in reader.text
    assert "Best trial: 0 value 0.5" in reader.text
    assert "img" not in reader.tags


def test_nothing_imports_matplotlib_before_it_draws_and_tasks_can_still_report() -> None:
    code = (
        "import sys, iolaus.reporting.page; print('matplotlib' in sys.modules, 'torch' in sys.modules);"
        "import iolaus; iolaus.report(1, 0.5)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert done.stdout == "False False\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of sweeps with the study ``mine``."""
    folder = tmp_path / "multirun"
    study = optuna.create_study(study_name="mine", storage=open_storage(str(folder / "mine" / "journal.log")))
    study.add_trial(complete(0.5))
    return folder


def test_the_report_of_a_study_can_be_written_again(program: Program, root: Path) -> None:
    done = program("report", "mine", "--root", str(root), entry="studies", defaults=False)
    assert done.code == 0
    assert done.out == f"{root / 'mine' / 'report.html'}\n"
    assert "Best trial: 0" in Reader(root / "mine" / "report.html").text


def test_a_misspelt_study_is_answered_with_those_that_there_are(program: Program, root: Path) -> None:
    done = program("report", "mime", "--root", str(root), entry="studies", defaults=False)
    assert done.code == 1
    assert done.message == f"error: there is no study mime in {root}; available: mine"


def test_a_study_whose_folder_is_elsewhere_has_no_place_for_its_report(program: Program, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    study = optuna.create_study(study_name="other", storage=open_storage(url))
    study.set_user_attr("iolaus:folder", str(tmp_path / "gone"))
    done = program("report", "other", "--storage", url, entry="studies", defaults=False)
    assert done.code == 1
    message = "the folder of study other, in which its report belongs, is not here: "
    assert done.message == f"error: {message}{tmp_path / 'gone'}"
    assert not (tmp_path / "gone").exists()
