"""A study that is read once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from iolaus.reporting import export, page
from iolaus.reporting.pictures import PICTURES, draw_all
from iolaus.reporting.snapshot import Snapshot
from iolaus.study import attributes
from iolaus.study.catalog import StoredStudy
from iolaus.study.storage import open_storage


def trial(
    *values: float, state: TrialState = TrialState.COMPLETE, end: str | None = None, x: float = 0.5
) -> FrozenTrial:
    attrs = {} if end is None else {attributes.END: end}
    space = {"x": FloatDistribution(0, 1)}
    return create_trial(
        state=state,
        values=values or None,
        params={"x": x},
        distributions=space,
        system_attrs=attrs,
        intermediate_values={1: 0.5},
    )


def running_study(path: Path, *directions: str) -> Study:
    """Twelve complete trials and one that runs, in a journal."""
    study = optuna.create_study(storage=open_storage(str(path / "journal.log")), directions=directions, study_name="a")
    for i in range(12):
        study.add_trial(trial(*[i / 12] * len(directions), x=i / 12))
    study.add_trial(trial(state=TrialState.RUNNING, x=0.9))
    return study


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "maximize"]])
def test_a_trial_that_ends_while_a_report_is_made_is_on_neither_its_page_nor_its_pictures(
    tmp_path: Path, directions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial that runs becomes the best as soon as the study has been read."""
    study, reads = running_study(tmp_path, *directions), 0
    get_trials: Callable[..., list[FrozenTrial]] = Study.get_trials

    def read(self: Study, *arguments: Any, **more: Any) -> list[FrozenTrial]:
        nonlocal reads
        found = get_trials(self, *arguments, **more)
        if self is study:
            reads += 1
            if reads == 1:
                running = found[-1]
                self._storage.set_trial_state_values(running._trial_id, TrialState.COMPLETE, [1.0] * len(directions))
        return found

    monkeypatch.setattr(Study, "get_trials", read)
    page.write_again(study, tmp_path)
    assert reads == 1
    text = (tmp_path / "report.html").read_text()
    assert "13 trials: 12 complete, 1 running." in text
    assert "<td>11</td>" in text
    assert "<td>12</td>" not in text

    shown = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    monkeypatch.undo()
    before = Snapshot.of(running_study(tmp_path / "again", *directions))
    expected = {f"{picture.name}.png": png for picture, png in draw_all(before).items() if png is not None}
    expected.pop("timeline.png"), shown.pop("timeline.png")  # whose trials began at different moments
    assert shown == expected
    assert len(shown) > 3


def test_an_export_reads_a_study_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, reads = running_study(tmp_path, "maximize"), []
    get_trials: Callable[..., list[FrozenTrial]] = Study.get_trials
    monkeypatch.setattr(Study, "get_trials", lambda self, *a, **k: reads.append(self) or get_trials(self, *a, **k))
    export.summarize(StoredStudy(study, tmp_path, in_folder=True))
    assert sum(read is study for read in reads) == 1


def test_a_snapshot_is_frozen(tmp_path: Path) -> None:
    study = running_study(tmp_path, "maximize")
    snapshot = Snapshot.of(study)
    study._storage.set_trial_state_values(study.trials[-1]._trial_id, TrialState.COMPLETE, [1.0])
    study.set_user_attr(attributes.NOTES, ["later"])
    assert snapshot.trials[-1].state == TrialState.RUNNING
    assert [best.number for best in snapshot.best] == [11]
    assert not snapshot.notes
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.name = "another"  # type: ignore[misc]
    with pytest.raises(TypeError):
        snapshot.attrs["another"] = 1  # type: ignore[index]


def test_surplus_trials_are_in_no_snapshot() -> None:
    study = optuna.create_study()
    study.add_trials([trial(0.5), trial(state=TrialState.FAIL, end=attributes.SURPLUS), trial(0.25)])
    snapshot = Snapshot.of(study)
    assert [trial.number for trial in snapshot.trials] == [0, 2]
    assert snapshot.ends == {"complete": 2}
    assert [trial.number for trial in snapshot.best] == [2]


def test_of_several_objectives_the_best_trials_are_those_of_the_study_under_their_own_numbers() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.add_trials([trial(state=TrialState.FAIL), trial(2, 2), trial(1, 1), trial(2, 1), trial(2, 2)])
    study.add_trial(create_trial(values=[0, 9], constraints={"size": 1.0}))
    assert [trial.number for trial in Snapshot.of(study).best] == [1, 2, 4]
    assert Snapshot.of(study).best == tuple(study.best_trials)


def test_each_picture_has_a_name_and_a_title_of_its_own_and_a_caption() -> None:
    for texts in ({picture.name for picture in PICTURES}, {picture.title for picture in PICTURES}):
        assert len(texts) == len(PICTURES)
    assert all(picture.caption.endswith(".") for picture in PICTURES)


def test_the_command_that_trains_the_best_trial_is_known_only_while_it_is_the_best() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trial(trial(0.5))
    study.set_user_attr(attributes.REPORT, {"trial": 0, "command": "python app.py", "target": 0.9})
    assert Snapshot.of(study).rerun_command == "python app.py"
    study.add_trial(trial(0.75))
    assert Snapshot.of(study).rerun_command is None
    assert Snapshot.of(study).target == 0.9
