from pathlib import Path

import pytest

from iolaus.classifier.run import test_set_log
from iolaus.errors import InputError


def test_each_look_is_a_line_and_is_counted_for_its_data_set(tmp_path: Path) -> None:
    assert (
        test_set_log.describe_looks(tmp_path, "mnist")
        == "No run of this project has looked at the test images of mnist."
    )
    test_set_log.record(tmp_path, "mnist", "outputs/1", 10_000)
    test_set_log.record(tmp_path, "digits", "outputs/2", 360)
    assert "of mnist once, last at 2" in test_set_log.describe_looks(tmp_path, "mnist")
    test_set_log.record(tmp_path, "mnist", "outputs/3", 10_000)
    assert "of mnist 2 times" in test_set_log.describe_looks(tmp_path, "mnist")
    first = next(test_set_log.looks(tmp_path, "mnist"))
    assert (first["run"], first["images"]) == ("outputs/1", 10_000)


def test_a_line_that_a_crash_has_left_unfinished_is_skipped(tmp_path: Path) -> None:
    test_set_log.record(tmp_path, "mnist", "outputs/1", 10_000)
    with open(tmp_path / test_set_log.FILE, "a") as file:
        file.write('{"time": "2026')
    assert len(list(test_set_log.looks(tmp_path, "mnist"))) == 1
    test_set_log.record(tmp_path, "mnist", "outputs/2", 10_000)
    assert [look["run"] for look in test_set_log.looks(tmp_path, "mnist")] == ["outputs/1", "outputs/2"]


def test_where_no_look_can_be_recorded_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a look at the test images cannot be recorded in .*missing"):
        test_set_log.record(tmp_path / "missing", "mnist", "outputs/1", 10_000)
