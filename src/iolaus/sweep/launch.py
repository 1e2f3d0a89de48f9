"""The workers of a command: their number, their start, and their end."""

import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from optuna.storages import BaseStorage

from iolaus.errors import one_line
from iolaus.search_space.compose import Composer
from iolaus.study.plan import Plan
from iolaus.study.queue import POLL_S, TrialQueue
from iolaus.sweep.live import Live
from iolaus.sweep.local_launcher import LocalLauncher
from iolaus.sweep.worker import NoProposalError, Worker
from iolaus.system import machine
from iolaus.task import MismatchError

log = logging.getLogger(__name__)

DYING_S = 5.0
"""Seconds within which processes are expected to be gone after an interruption."""


class WorkerPool:
    """Workers for the plans of one command.

    Args:
        settings: The keys of ``hydra.sweeper``.
        hydra_context: Hydra's.
        task_function: Run for each trial.
        first: The overrides of a trial that can be composed: a worker's own job is composed like one.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        hydra_context: HydraContext,
        task_function: TaskFunction,
        first: Sequence[str],
    ) -> None:
        """Keep what workers are made from."""
        self.settings, self.first = settings, first
        self.hydra_context, self.task_function = hydra_context, task_function

    def workers(self, left: int, composer: Composer) -> int:
        """Return the number of workers for so many trials, by the rule that ``n_jobs`` documents."""
        sweep_config = composer.sweep_config
        asked = self.settings["n_jobs"]
        in_process = "hydra/launcher=basic" in sweep_config.hydra.overrides.hydra
        automatic = len(machine.gpus()) or machine.cores()
        workers = 1 if in_process else min(automatic if asked is None else asked, left)
        if workers > 1 and _launcher_name(sweep_config) == "basic":
            try:
                cloudpickle.dumps((self.task_function, self.hydra_context, sweep_config))
            except Exception as error:  # of whatever the task's module holds
                log.warning("one worker only, in this process: the task cannot be sent to others: %s", one_line(error))
                return 1
        return workers

    def run(self, plan: Plan, storage: BaseStorage, workers: int, composer: Composer) -> str | None:
        """Have workers go through a plan, and return the error that kept one of them from it."""
        folders = Path(plan.folder) / "workers"
        folders.mkdir(parents=True, exist_ok=True)
        first = _reserve(folders, workers)
        worker = Worker(plan, self.task_function, self.hydra_context, composer, first, workers, storage)
        launcher = self._launcher(worker, composer.sweep_config)
        job = [*self.first, "hydra.sweep.subdir=workers/${hydra.job.num}"]
        with Live(plan.open(storage), alone=isinstance(launcher, LocalLauncher)):
            try:
                returned = launcher.launch([job] * workers, initial_job_idx=first)
            except Exception as error:  # joblib's, if one of its processes was killed
                return f"{type(error).__name__}: {error}"
        return next((_cause(job._return_value) for job in returned if job.status == JobStatus.FAILED), None)

    def _launcher(self, worker: Worker, sweep_config: DictConfig) -> Launcher:
        """Return the launcher that is configured; for several workers ours in place of Hydra's default."""
        # The callbacks are for trials, not for the jobs that run them.
        context = HydraContext(self.hydra_context.config_loader, Callbacks(), self.hydra_context.execution_whitelist)
        name = _launcher_name(sweep_config)
        if name != "local" and (name != "basic" or worker.workers == 1):
            logging.getLogger("hydra._internal.core_plugins.basic_launcher").setLevel(logging.WARNING)
            return Plugins.instance().instantiate_launcher(context, worker, sweep_config)
        launcher = LocalLauncher()
        launcher.setup(hydra_context=context, task_function=worker, config=sweep_config)
        return launcher


def fail_dying_trials(queue: TrialQueue, end: str) -> None:
    """Wait a little for trials that still run: other people's launchers do not wait for processes that they kill."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()  # its processes would end with this one only
    deadline = time.monotonic() + DYING_S
    while queue.tally().running and time.monotonic() < deadline:
        time.sleep(0.1)
        queue.fail_lost_trials(end)


def wait_for_others(queue: TrialQueue) -> None:
    """Wait for the trials that other commands are at work on, to which this one would add no more."""
    told = False
    while queue.fail_lost_trials() or queue.tally().running:
        if not told:
            log.info("waiting for the trials of another command")
            told = True
        time.sleep(POLL_S)


def _launcher_name(sweep_config: DictConfig) -> str:
    return str(sweep_config.hydra.runtime.choices["hydra/launcher"])


def _cause(error: object) -> str:
    """Return an error's message without its class, which a traceback's last line names."""
    kinds = "|".join(f"{kind.__module__}.{kind.__qualname__}" for kind in (NoProposalError, MismatchError))
    return re.sub(rf"^({kinds}): ", "", str(error))


def _reserve(folders: Path, count: int) -> int:
    """Make folders for so many workers, with numbers that nobody else has, and return the first of them."""
    taken = [int(folder.name) for folder in folders.iterdir() if folder.name.isdecimal()]
    first = max(taken, default=-1) + 1
    while True:
        try:
            for number in range(first, first + count):
                (folders / str(number)).mkdir()
        except FileExistsError:  # another command is as fast
            first = first + count
        else:
            return first
