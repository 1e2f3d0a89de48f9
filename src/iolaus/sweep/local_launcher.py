"""Jobs in processes of their own on this machine, each watched and replaced alone."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from iolaus.search_space.compose import Composer
from iolaus.system.exit import skip_teardown
from iolaus.system.machine import cores

log = logging.getLogger(__name__)

GRACE_S = 30.0
"""Seconds for a job to end after it was interrupted; then it is killed."""
LOOK_S = 0.1
"""Seconds between two looks at the processes."""
DONE, BROKEN, INTERRUPTED = 170, 171, 130
"""Exit codes of a job that came to its end, and of one that raised an exception. Whatever else was a kill, also 0: a
task may call ``os._exit(0)``."""

# Paths first: what the job is made of may only be found through them. Where it is not, another process would not find
# it either.
START = f"""
import pickle, sys, traceback
pipe = sys.stdin.buffer
sys.path[:], sys.argv[:] = pickle.load(pipe)
try:
    import iolaus.system.exit  # before anything else is registered for the end
    job = pickle.load(pipe)
except Exception:
    traceback.print_exc()
    sys.exit({BROKEN})
job()
"""


class LocalLauncher(Launcher):
    """Starts a new process for each job, so that all run at once.

    A job whose process is killed starts again. All of them share the cores: ``OMP_NUM_THREADS`` is set unless it is
    set already. They are shielded from the terminal's Ctrl-C, and end when this process does, however it ends.
    What a job prints goes to ``output.log`` in its folder.
    """

    def __init__(self) -> None:
        """Nothing can be configured."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives a launcher."""
        self.hydra_context, self.task_function, self.sweep_config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs, and wait for them; on Ctrl-C interrupt them, on a second one kill them.

        Args:
            job_overrides: Of each job.
            initial_job_idx: The number of the first.

        Returns:
            One for each job, without a value: it must keep its results elsewhere.
        """
        setup_globals()
        state = Singleton.get_state()
        threads = str(max(1, cores() // len(job_overrides)))
        self.environment = {"OMP_NUM_THREADS": threads, **os.environ}
        self.jobs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            job = Job(self.hydra_context, self.task_function, self.sweep_config, state, list(overrides), number)
            folder = Path(self.sweep_config.hydra.sweep.dir) / job.compose().hydra.sweep.subdir
            folder.mkdir(parents=True, exist_ok=True)
            self.jobs.append((cloudpickle.dumps(job), folder / "output.log"))

        processes: list[Any] = []
        try:
            for job, output in self.jobs:
                processes.append(self._start(job, output))
            self._watch(processes)
        except BaseException:
            _interrupt(processes)
            raise
        return [
            self._returned(overrides, process, output)
            for overrides, process, (_, output) in zip(job_overrides, processes, self.jobs, strict=True)
        ]

    def _start(self, job: bytes, output: Path) -> Any:
        with open(output, "ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", START],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has been killed already, as the watch will see
            process.stdin.write(pickle.dumps((sys.path, sys.argv)) + job)
            process.stdin.flush()
        return process

    def _watch(self, processes: list[Any]) -> None:
        """Wait until all have ended, and start those again that were killed."""
        started = [time.monotonic()] * len(processes)
        delays = [0.0] * len(processes)
        while any(process.poll() is None or self._was_killed(process) for process in processes):
            time.sleep(LOOK_S)
            for index, process in enumerate(processes):
                now = time.monotonic()
                if process.poll() is None or not self._was_killed(process) or now < started[index] + delays[index]:
                    continue
                # One that is killed as soon as it starts shall not keep the machine busy with starting it.
                delays[index] = min(2 * delays[index] + 0.1, 30.0) if now < started[index] + 5 else 0.0
                if delays[index] > 1:
                    log.warning(
                        "a worker keeps being killed (exit code %d): %s", process.returncode, self.jobs[index][1]
                    )
                started[index] = now
                _close(process)
                processes[index] = self._start(*self.jobs[index])

    @staticmethod
    def _was_killed(process: Any) -> bool:
        return process.returncode not in (None, DONE, BROKEN)

    @staticmethod
    def _returned(overrides: Sequence[str], process: Any, output: Path) -> JobReturn:
        returned = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
        if process.returncode == BROKEN:
            with open(output, "rb") as file:
                file.seek(max(0, output.stat().st_size - 65536))
                lines = file.read().decode(errors="replace").splitlines() or ["it left no message"]
            returned.status = JobStatus.FAILED
            returned.return_value = RuntimeError(f"{lines[-1]} (all of it: {output})")
        _close(process)
        return returned


def _close(process: Any) -> None:
    """Close a process's end of the pipe, which may have gone before it had read everything."""
    with suppress(BrokenPipeError):
        process.stdin.close()


def _interrupt(processes: list[Any]) -> None:
    """Have processes end, and kill those that do not in time, or all if there is a second Ctrl-C."""
    for process in processes:
        _close(process)  # which it understands as an interruption
    end = time.monotonic() + GRACE_S + 5
    try:
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
    finally:
        for process in processes:
            process.kill()  # does nothing where it has ended
        for process in processes:
            process.wait()  # so that nobody takes it for alive


@dataclass
class Job:
    """A job on its way to its process, where it is called."""

    hydra_context: HydraContext
    task_function: TaskFunction
    sweep_config: DictConfig
    singletons: Any
    overrides: list[str]
    number: int

    def compose(self) -> DictConfig:
        """Return the job's configuration."""
        return Composer(self.hydra_context.config_loader, self.sweep_config).compose_job(self.overrides, self.number)

    def __call__(self) -> None:
        """Run, and end the process with a code that says how it went."""
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.default_int_handler)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        try:
            setup_globals()
            Singleton.set_state(self.singletons)
            returned = run_job(
                hydra_context=self.hydra_context,
                task_function=self.task_function,
                config=self.compose(),
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            _ = returned.return_value  # raises what the job raised
            skip_teardown(DONE)
            sys.exit(DONE)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except Exception:
            traceback.print_exc()
            sys.exit(BROKEN)


def _end_with_parent() -> None:
    """Interrupt this process once its parent closes the pipe between them, be it by being killed."""
    while os.read(0, 1):  # not through sys.stdin, whose lock would be held when this process ends
        pass
    if hasattr(signal, "pthread_kill"):
        ident = threading.main_thread().ident
        assert ident is not None
        signal.pthread_kill(ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
    time.sleep(GRACE_S)
    os._exit(INTERRUPTED)
