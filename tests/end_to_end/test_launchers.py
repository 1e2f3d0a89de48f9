"""The workers of a sweep under each launcher: interrupted, killed, replaced, and sharing cores and GPUs."""

import importlib.util
import os
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sweeps import App, check, children, gone, kill
from waiting import HANG_S, Started, wait_until

from iolaus.study.attributes import END, INTERRUPTED, LOST
from iolaus.system.machine import cores

PACKAGES = {"joblib": "hydra_joblib_launcher", "ray": "hydra_ray_launcher", "submitit_local": "hydra_submitit_launcher"}

# What it writes says where it ran; what it does is told by cfg.task.
TASK = """
import os, pathlib
import hydra
from hydra.core.hydra_config import HydraConfig
from waiting import pass_gate

class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.lock = __import__("threading").Lock()

@hydra.main(config_path=None, config_name="config")
def main(cfg):
    folder = HydraConfig.get().runtime.output_dir
    with open(f"{folder}/ran", "a") as file:
        file.write(f"{os.getpid()}\\n")
    with open(f"{folder}/variables", "w") as file:
        file.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.environ.get('OMP_NUM_THREADS')}")
    with open(f"{folder}/open", "w") as file:
        file.write(str(len(os.listdir("/proc/self/fd"))))
    if cfg.task == "vanish":
        os._exit(0)
    if cfg.task == "unpicklable":
        raise Unpicklable(1, 2)
    pass_gate(folder)
    return (cfg.x - 2) ** 2

from hydra.core.config_store import ConfigStore
ConfigStore.instance().store(name="config", node={"x": 0.0, "task": "value"})
main()  # without a guard: workers must not run it once more
"""


def needs(launcher: str) -> None:
    if launcher in PACKAGES and importlib.util.find_spec(f"hydra_plugins.{PACKAGES[launcher]}") is None:
        pytest.skip(f"needs the package {PACKAGES[launcher].replace('_', '-')}")


def wait_for_trials(app: App, process: Started, count: int) -> None:
    """Wait until so many trials are under way."""
    wait_until(lambda: process.poll() is not None or app.begun() >= count)
    assert process.poll() is None, process.communicate()[0]


def finish(process: Started) -> str:
    return process.communicate(timeout=HANG_S)[0]


@pytest.mark.parametrize(
    "launcher", ["basic", "local", "joblib", pytest.param("ray", marks=pytest.mark.slow), "submitit_local"]
)
def test_each_launcher_places_workers_that_come_to_the_total(tmp_path: Path, launcher: str) -> None:
    needs(launcher)
    workers = 1 if launcher == "basic" else 2
    app = App(tmp_path, f"hydra/launcher={launcher}", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=6")
    app.meet(workers)
    app.run()
    trials = check(app, 6)
    processes = {(app.study_folder / str(trial.number) / "ran").read_text() for trial in trials}
    assert len(processes) == workers


@pytest.mark.parametrize(
    ("launcher", "whole_group"), [("basic", False), ("local", False), ("local", True), ("joblib", True)]
)
def test_ctrl_c_ends_cleanly_with_nothing_left_running(tmp_path: Path, launcher: str, whole_group: bool) -> None:
    needs(launcher)
    app = App(tmp_path, f"hydra/launcher={launcher}", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=4")
    app.hold()
    with app.start() as process:
        wait_for_trials(app, process, 1 if launcher == "basic" else 2)
        workers = children(process.pid)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        out = finish(process)
    assert process.returncode == 130, out
    assert "Traceback" not in out
    wait_until(lambda: all(gone(worker) for worker in workers))
    assert "interrupted: 0 of 4 trials finished; the same command goes on" in out
    assert {trial.system_attrs[END] for trial in app.trials()} == {INTERRUPTED}


def test_sigterm_is_as_ctrl_c_and_the_same_command_goes_on(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=4")
    app.hold()
    with app.start() as process:
        wait_for_trials(app, process, 2)
        process.terminate()
        out = finish(process)
    assert process.returncode == 130, out
    app.go()
    app.run()
    check(app, 4)


def test_a_second_ctrl_c_kills_what_does_not_end(tmp_path: Path) -> None:
    stubborn = TASK.replace("    pass_gate(folder)\n", textwrap.indent(PATIENT + STUBBORN, "    "))
    app = App(tmp_path, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=2", source=PATIENT + stubborn)
    app.hold()
    with app.start() as process:
        wait_for_trials(app, process, 2)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: len(list(app.study_folder.glob("[0-9]/interrupted"))) == 2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out = finish(process)
    assert process.returncode == 130, out
    assert {trial.system_attrs[END] for trial in app.trials()} == {INTERRUPTED}


# With which the command and its workers wait longer for each other than the test does for them.
PATIENT = f"""
from iolaus.sweep import local_launcher
assert local_launcher.GRACE_S < {HANG_S}
local_launcher.GRACE_S = 2 * {HANG_S}
"""
STUBBORN = """
while True:
    try:
        pass_gate(folder)
    except KeyboardInterrupt:
        pathlib.Path(folder, "interrupted").touch()
"""


def test_a_worker_that_is_killed_is_replaced_while_the_sweep_runs(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=4")
    app.hold()
    with app.start() as process:
        wait_for_trials(app, process, 2)
        before = children(process.pid)
        kill(before[:1])
        wait_until(lambda: len(children(process.pid)) == 2 and children(process.pid) != before)
        app.go()
        out = finish(process)
    assert process.returncode == 0, out
    assert [trial.system_attrs.get(END) for trial in check(app, 4)].count(LOST) == 1


def test_workers_end_by_themselves_when_their_parent_is_killed(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=4")
    app.hold()
    with app.start() as process:
        wait_for_trials(app, process, 2)
        workers = children(process.pid)
        process.kill()
        process.wait()
    wait_until(lambda: all(gone(worker) for worker in workers))
    assert {trial.system_attrs[END] for trial in app.trials()} == {INTERRUPTED}


def test_two_commands_at_once_come_to_the_total_together(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=20")
    app.meet(4)
    with app.start() as one, app.start() as other:
        outs = finish(one), finish(other)
    assert (one.returncode, other.returncode) == (0, 0), outs
    trials = check(app, 20)
    assert len(trials) == 20
    assert len({(app.study_folder / t.user_attrs["folder"] / "ran").read_text() for t in trials if t.value}) == 4


def test_workers_share_the_cores_and_each_has_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    app = App(tmp_path, "hydra.sweeper.n_trials=3", source=TASK)
    app.meet(3)
    app.run()
    seen = [(app.study_folder / str(number) / "variables").read_text().split() for number in range(3)]
    assert sorted(gpu for gpu, _ in seen) == ["0", "1", "2"]
    assert {threads for _, threads in seen} == {str(max(1, cores() // 3))}


def test_a_task_that_ends_its_process_counts_as_failed_at_its_third_loss(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=1", source=TASK)
    app.overrides += ("hydra/launcher=local",)
    app.run("task=vanish", code=1)
    assert [trial.system_attrs[END] for trial in app.trials()] == [LOST, LOST, LOST]
    assert app.search(1).tally().counted == 1


def test_an_exception_that_cannot_be_pickled_fails_its_trial_only(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=2", source=TASK)
    app.run("task=unpicklable", code=1)
    assert [trial.user_attrs["reason"] for trial in app.trials()] == ["Unpicklable: 1 and 2"] * 2


def test_trials_leave_no_file_open(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra/launcher=basic", "hydra.sweeper.n_trials=25", source=TASK)
    app.run()
    first, *_, last = (int((app.study_folder / str(number) / "open").read_text()) for number in range(25))
    assert last <= first


def test_a_module_in_a_folder_with_spaces_and_quotes_runs_with_workers(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "folder", really'
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "__init__.py").touch()
    app = App(folder / "package", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=2", source=TASK)
    options = [option for option in app.command()[2:] if not option.startswith("hydra.sweep.dir")]
    command = [app.command()[0], "-m", "package.app", *options]
    done = subprocess.run(command, cwd=folder, env=app.environment, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    assert (folder / "multirun" / "study" / "1" / "ran").is_file()
    assert "once more:  python -m package.app x=" in done.stdout


def test_what_a_trial_has_allocated_is_given_back_even_if_it_fails(tmp_path: Path) -> None:
    greedy = """
import pathlib, re
import hydra

@hydra.main(config_path=None, config_name="config")
def main(cfg):
    resident = int(re.search(r"VmRSS:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
    with open("resident", "a") as file:
        file.write(f"{resident}\\n")
    held = [bytearray(b"x") * 200_000_000]
    held.append(held)  # only the garbage collector frees it
    if int(cfg.x * 100) % 2:
        raise RuntimeError("failed with 200 MB in hand")
    return cfg.x

if __name__ == "__main__":
    from hydra.core.config_store import ConfigStore
    ConfigStore.instance().store(name="config", node={"x": 0.0})
    main()
"""
    app = App(tmp_path, source=greedy)
    app.run("hydra.sweeper.n_trials=10", "hydra.sweeper.n_jobs=1")
    assert {trial.state for trial in app.trials()} == {TrialState.COMPLETE, TrialState.FAIL}
    resident = [int(line) / 1000 for line in (tmp_path / "resident").read_text().split()]
    assert max(resident) < resident[0] + 100  # MB


FALLIBLE = """
import pathlib
import hydra, iolaus, optuna
{imported}

@hydra.main(config_path=None, config_name="config")
def main(cfg):
    iolaus.require_same("the content of the data", pathlib.Path("data").read_text())
    iolaus.report(1, cfg.x)
    if cfg.x < 2.5:
        raise optuna.TrialPruned
    return (cfg.x - 2) ** 2

if __name__ == "__main__":
    from hydra.core.config_store import ConfigStore
    ConfigStore.instance().store(name="config", node={{"x": 0.0}})
    main()
"""


def test_other_data_end_the_search_and_count_against_no_trial(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_jobs=1", source=FALLIBLE.format(imported=""))
    (tmp_path / "data").write_text("a")
    app.run("hydra.sweeper.n_trials=3")
    (tmp_path / "data").write_text("b")
    out = app.run("hydra.sweeper.n_trials=6", code=1)
    assert "the content of the data is not what study study began with" in out
    assert "3 of 6 trials finished" in out.splitlines()[-1]
    app.run("hydra.sweeper.n_trials=6", "hydra.sweeper.on_mismatch=continue")
    assert app.search(6).tally().counted == 6


def test_a_task_may_prune_its_trial(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_jobs=1", source=FALLIBLE.format(imported=""))
    (tmp_path / "data").write_text("a")
    app.run("hydra.sweeper.n_trials=8", "hydra.sweeper.max_failure_rate=0")
    for trial in app.trials():
        assert trial.state == (TrialState.PRUNED if trial.params["x"] < 2.5 else TrialState.COMPLETE)
        assert trial.intermediate_values == {1: trial.params["x"]}


def test_a_task_that_no_worker_can_import_ends_the_sweep_with_the_reason(tmp_path: Path) -> None:
    made = "import sys, types\nhere = types.ModuleType('only_here'); sys.modules['only_here'] = here\n"
    made += "exec('def used(): pass', here.__dict__)\nfrom only_here import used"
    source = FALLIBLE.format(imported=made).replace("iolaus.report", "used(); iolaus.report")
    app = App(tmp_path, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=2", source=source)
    out = app.run(code=1)
    assert "No module named 'only_here'" in out.splitlines()[-1]


def test_no_more_workers_start_than_there_are_trials_left(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_jobs=2")
    app.run("hydra.sweeper.n_trials=3")
    assert "3 of 4 trials finished; 1 workers" in app.run("hydra.sweeper.n_trials=4")
