"""A worker: an ordinary Hydra job that claims one trial after the other, and runs each as a Hydra job of its own."""

import gc
import logging
import os
import signal
import statistics
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus, configure_log, run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, read_write
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import Trial

from iolaus.errors import InputError, one_line
from iolaus.search_space.compose import Composer
from iolaus.study.attributes import FAILED, FOLDER, INTERRUPTED, NAME
from iolaus.study.plan import Plan
from iolaus.study.pruners import prunes_between_repeats
from iolaus.study.queue import TrialQueue
from iolaus.system import machine
from iolaus.task import MismatchError, set_current_trial

log = logging.getLogger(__name__)


class NoProposalError(Exception):
    """The sampler or the custom search space has raised: the search itself is broken, not a trial."""


@dataclass
class Worker:
    """The task function of a worker's job.

    Args:
        plan: The plan of the search.
        task_function: Run for each trial.
        hydra_context: Of the sweep.
        composer: Composes each trial.
        first: The number of the first worker's job.
        workers: The number of workers.
        storage: Of the study, as long as the worker is in the process that has opened it.
    """

    plan: Plan
    task_function: TaskFunction
    hydra_context: HydraContext
    composer: Composer
    first: int
    workers: int
    storage: BaseStorage | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the storage, which each process opens for itself."""
        return {**vars(self), "storage": None}

    def __call__(self, _: DictConfig) -> int:
        """Work until the search is over, and return the number of trials that were run."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        queue = self.plan.open(self.storage)
        job: Any = HydraConfig.instance().cfg
        gpus = machine.gpus()
        if len(gpus) > 1 and self.workers > 1:  # CUDA looks here when a trial first uses it
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[(job.hydra.job.num - self.first) % len(gpus)]
        _sigterm_of_ray_as_ctrl_c()
        done = 0
        try:
            while (trial := queue.claim()) is not None:
                try:
                    self._run(queue, trial)
                finally:
                    configure_log(job.hydra.job_logging, job.hydra.verbose, self.hydra_context.execution_whitelist)
                done += 1
                give_back_memory()
                if done == 1:
                    gc.freeze()  # what was imported by now stays: to go through it after each trial would take long
        finally:
            gc.unfreeze()
        return done

    def _run(self, queue: TrialQueue, trial: Trial) -> None:
        try:
            with queue.lease_renewed(trial):
                values = self._run_job(trial)
        except KeyboardInterrupt:
            queue.fail(trial, INTERRUPTED, "interrupted")
            raise
        except optuna.TrialPruned:
            told = queue.prune(trial)
        except (NoProposalError, MismatchError) as error:  # nor would the next trial fare better
            queue.fail(trial, INTERRUPTED, str(error))
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # which a clean-up has covered up, Hydra's say
                queue.fail(trial, INTERRUPTED, "interrupted")
                raise KeyboardInterrupt from error
            reason = f"{type(error).__name__}: {one_line(error)}"
            log.warning("trial %d failed: %s", trial.number, reason)
            told = queue.fail(trial, FAILED, reason)
        else:
            told = queue.tell(trial, values)
        if not told:
            log.warning("trial %d had been given up as lost, and is retried elsewhere", trial.number)

    def _run_job(self, trial: Trial) -> list[float]:
        """Run the task once, or once for each repeat, and return its values or their means."""
        try:
            chosen = self.plan.suggest(trial, self.composer.sweep_config, self.hydra_context.execution_whitelist)
        except UpdateFinishedTrialError:  # it has been given up as lost
            raise
        except Exception as error:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            raise NoProposalError(f"no parameters could be chosen: {kind}{one_line(error)}") from error
        config = self.compose(trial.number, chosen)
        trial.set_user_attr(FOLDER, str(config.hydra.sweep.subdir))
        if (name := self.plan.name_of(trial.params)) is not None:
            trial.set_user_attr(NAME, name)
        if self.plan.repeats == 1:
            return self._values(trial, config)
        runs = []
        between = prunes_between_repeats(trial.study.pruner)
        for repeat in range(self.plan.repeats):
            again = self.repeat(config, chosen, repeat)
            # Of all other pruners' kinds the first repeat decides: the others have no such steps to compare with.
            runs.append(self._values(trial, again, reports=repeat == 0 and not between, repeat=repeat))
            if between:
                trial.report(runs[-1][0], repeat)
                if trial.should_prune() and repeat + 1 < self.plan.repeats:
                    raise optuna.TrialPruned(f"pruned after repeat {repeat + 1} of {self.plan.repeats}")
        return [statistics.fmean(values) for values in zip(*runs, strict=True)]

    def repeat(self, config: DictConfig, chosen: Sequence[str], number: int) -> DictConfig:
        """Return the configuration of a trial's repeat: with a seed of its own, in a folder within the trial's."""
        seed = int(config.seed) + number
        again = self.composer.compose_job([*chosen, f"seed={seed}"], config.hydra.job.num)
        with read_write(again.hydra):
            again.hydra.sweep.subdir = f"{config.hydra.sweep.subdir}/seed={seed}"
        return again

    def _task(self, config: DictConfig) -> Any:
        """Run the task; its pruning is not a failure that Hydra should log."""
        try:
            return self.task_function(config)
        except optuna.TrialPruned as pruned:
            return pruned

    def compose(self, number: int, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration of a trial, with a folder that is made for it and that nobody else has."""
        config = self.composer.compose_job(overrides, number)
        hydra: Any = HydraConfig.instance()
        hydra.cfg, previous = config, hydra.cfg  # set_config would copy it
        try:
            subdir, folder = str(config.hydra.sweep.subdir), Path(config.hydra.sweep.dir)
        finally:
            hydra.cfg = previous
        free, again = subdir, 1
        while True:
            try:
                (folder / free).mkdir(parents=True)
            except FileExistsError:
                again += 1
                free = f"{subdir}_{again}"
            else:
                break
        with read_write(config.hydra):
            config.hydra.sweep.subdir = free
        return config

    def _values(self, trial: Trial, config: DictConfig, reports: bool = True, repeat: int | None = None) -> list[float]:
        """Return the values that the task returned, as numbers; raises what it raised."""
        set_current_trial(trial, reports, repeat, self.plan.final)
        try:
            job = run_job(
                hydra_context=self.hydra_context,
                task_function=self._task,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        finally:
            set_current_trial(None)
        returned = job._return_value  # the property would print a line for each failure
        if job.status is JobStatus.FAILED or isinstance(returned, optuna.TrialPruned):
            raise returned
        objectives = len(trial.study.directions)
        try:
            values = [float(returned)] if objectives == 1 else [float(value) for value in returned]
        except (TypeError, ValueError):
            expected = "a number" if objectives == 1 else f"{objectives} numbers"
            raise ValueError(f"the task must return {expected}, but returned {returned!r}") from None
        if len(values) != objectives:
            raise ValueError(f"the task must return {objectives} numbers, but returned {len(values)}")
        if any(value != value for value in values):
            raise ValueError("the task returned NaN")
        return values


def give_back_memory() -> None:
    """Free the memory that a trial has left in cycles, such as its traceback if it failed, on the GPU as well."""
    gc.collect()
    torch = sys.modules.get("torch")  # if the task has imported it
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _sigterm_of_ray_as_ctrl_c() -> None:
    """Ray ends its processes by SIGTERM, which it turns into a SystemExit that would look like the task's own."""
    handler = signal.getsignal(signal.SIGTERM)
    of_ray = (getattr(handler, "__module__", None) or "").partition(".")[0] == "ray"
    if of_ray and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
