import errno
import shlex
import sys
from pathlib import Path

import pytest

from iolaus import command_line
from iolaus.errors import InputError


def saved_overrides(folder: Path, *overrides: str) -> str:
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides))
    return f"resume={folder}/checkpoint.pt"


def test_resume_brings_the_overrides_of_the_run_and_those_beside_it_win(tmp_path: Path) -> None:
    resume = saved_overrides(tmp_path, "model=mlp", "epochs=3")
    assert command_line.expand_resume(["epochs=4", resume]) == ["model=mlp", "epochs=4", resume]


def test_resume_takes_no_code_to_run_from_a_file(tmp_path: Path) -> None:
    resume = saved_overrides(tmp_path, "model._target_=os.system", "'+x={_target_: os.system}'", "seed=1")
    assert command_line.expand_resume([resume]) == ["seed=1", resume]


def test_resume_takes_no_options_and_no_search_path_from_a_file(tmp_path: Path) -> None:
    resume = saved_overrides(
        tmp_path,
        "hydra.searchpath=[/elsewhere]",
        "+hydra.searchpath=[/elsewhere]",
        "--config-dir=/elsewhere",
        "-m",
        "seed=1",
    )
    assert command_line.expand_resume([resume]) == ["seed=1", resume]


def test_the_command_that_resumes_keeps_options_and_quotes_what_hydra_would_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["src/train.py", "--config-dir", "mine", "-cn=other", "model=tiny", "resume=old"])
    command = command_line.resume_command(["model=tiny", "resume=old"], Path("/a,b/checkpoint.pt"))
    assert shlex.split(command) == [
        "python", "src/train.py", "--config-dir", "mine", "-cn=other", "model=tiny", "resume='/a,b/checkpoint.pt'"
    ]  # fmt: skip


def test_without_resume_the_command_line_stays_as_it_is() -> None:
    assert command_line.expand_resume(["model=mlp", "-m"]) == ["model=mlp", "-m"]


def test_a_mistake_is_found_below_the_exceptions_that_wrap_it() -> None:
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = InputError("epochs must be at least 1, but got 0")
    assert command_line.explain(wrapped) == "epochs must be at least 1, but got 0"


def test_a_full_disk_is_a_line_that_names_the_file() -> None:
    line = command_line.explain(OSError(errno.ENOSPC, "No space left on device", "/somewhere/model.pt"))
    assert line is not None
    assert "no space left on the disk of /somewhere/model.pt" in line


def test_what_is_not_the_users_mistake_keeps_its_traceback() -> None:
    assert command_line.explain(ValueError("a bug")) is None
