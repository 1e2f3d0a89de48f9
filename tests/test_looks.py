from pathlib import Path

import pytest

from iolaus import looks
from iolaus.errors import InputError


def test_each_look_is_a_line_and_is_counted_for_its_data_set(tmp_path: Path) -> None:
    assert looks.in_words(tmp_path, "mnist") == "No run of this project has looked at the test images of mnist."
    looks.record(tmp_path, "mnist", "outputs/1", 10_000)
    looks.record(tmp_path, "digits", "outputs/2", 360)
    assert "of mnist once, last at 2" in looks.in_words(tmp_path, "mnist")
    looks.record(tmp_path, "mnist", "outputs/3", 10_000)
    assert "of mnist 2 times" in looks.in_words(tmp_path, "mnist")
    first = next(looks.looks(tmp_path, "mnist"))
    assert (first["run"], first["images"]) == ("outputs/1", 10_000)


def test_a_line_that_a_crash_has_left_unfinished_is_skipped(tmp_path: Path) -> None:
    looks.record(tmp_path, "mnist", "outputs/1", 10_000)
    with open(tmp_path / looks.FILE, "a") as file:
        file.write('{"time": "2026')
    assert len(list(looks.looks(tmp_path, "mnist"))) == 1
    looks.record(tmp_path, "mnist", "outputs/2", 10_000)
    assert [look["run"] for look in looks.looks(tmp_path, "mnist")] == ["outputs/1", "outputs/2"]


def test_where_no_look_can_be_recorded_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a look at the test images cannot be recorded in .*missing"):
        looks.record(tmp_path / "missing", "mnist", "outputs/1", 10_000)
