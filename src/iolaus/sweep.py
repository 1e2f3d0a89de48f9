"""A sweep from its command line to its summary: which study it is, who works on it, what came of it."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cloudpickle
import optuna
from filelock import FileLock
from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import StorageInternalError
from optuna.study import Study
from optuna.trial import TrialState

from hydra_plugins.iolaus_local import LocalLauncher
from iolaus import machine
from iolaus.command import Command
from iolaus.dry_run import dry_run
from iolaus.enqueue import ENQUEUE, enqueue, known_settings
from iolaus.errors import InputError
from iolaus.journal import open_storage
from iolaus.live import Live, why_failed
from iolaus.overrides import one_line
from iolaus.plan import Plan
from iolaus.planner import Planner
from iolaus.search import ENDS, FAILURES, GOALS, GROWN, TOTAL, Search
from iolaus.study import STUDY_FOLDER, open_study
from iolaus.summary import passed, summary, write_report, write_results
from iolaus.tally import INTERRUPTED, LOST
from iolaus.worker import Worker

log = logging.getLogger(__name__)

DYING_S = 5.0
"""Seconds within which processes are expected to be gone after an interruption."""


class SweepError(CompactHydraException):
    """Ends a sweep with its message: Hydra prints nothing else of it."""


class Sweep:
    """One command that searches.

    Args:
        settings: The keys of ``hydra.sweeper``.
        hydra_context: Hydra's.
        task_function: What is run for each trial.
        config: Of the sweep.
    """

    def __init__(
        self, settings: Mapping[str, Any], hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives a sweeper."""
        plain = OmegaConf.to_container(OmegaConf.create(dict(settings), flags={"allow_objects": True}), resolve=True)
        assert isinstance(plain, dict)
        self.settings: dict[str, Any] = {str(key): value for key, value in plain.items()}
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def run(self, arguments: Sequence[str]) -> None:
        """Search until the study has its total, then show the best and write ``optimization_results.yaml``.

        Args:
            arguments: The overrides of the command line that are not Hydra's own.

        Raises:
            SweepError: for a mistake of the user's, or when too many trials fail.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            with _sigterm_as_ctrl_c():
                self._run(arguments)
        except (InputError, OSError, StorageInternalError) as error:
            raise SweepError(f"error: {one_line(error)}") from None
        except KeyboardInterrupt:  # before there was a trial to interrupt, or after all
            sys.exit(130)

    def _run(self, arguments: Sequence[str]) -> None:
        command = Command(self.settings, arguments, self.hydra_context.config_loader, self.config)
        planner = Planner(command, self.settings, self.hydra_context, self.config)
        plan, facts = planner.plan()
        self.first = planner.branches[0]
        self._notify("on_search_start", directions=planner.directions, target=self.settings["target"])  # it may refuse
        typed = any(override.startswith(ENQUEUE) for override in self.config.hydra.overrides.hydra)
        named = () if typed else command.named  # who types both is told of a mistake
        first = known_settings(self.settings["enqueue"], plan.space, command.default_of, plan.fixed, named)
        if self.settings["dry_run"]:
            workers = self._workers(plan.goals.n_trials)
            for line in dry_run(
                plan, planner.branches, self.hydra_context, self.config, workers, self.settings["timeout_s"]
            ):
                say(line)
            return
        Path(plan.folder).mkdir(parents=True, exist_ok=True)
        with FileLock(Path(plan.folder) / "claim.lock"):  # of two commands at once, one makes the study
            study = open_study(
                open_storage(plan.storage), plan.study_name, planner.directions, facts, self.settings["on_mismatch"],
                plan.space,
            )  # fmt: skip
            plan = plan.begun(study)
            _note(plan, study)
            enqueue(study, first)
        search = plan.open()
        search.give_up_lost()
        tally = search.tally()
        workers = 0 if search.ended_by(tally) is not None else self._workers(search.n_trials - tally.counted)
        state = f"{tally.counted} of {search.n_trials} trials finished"
        say(f"study {plan.study_name}: {state}; {workers} workers; {plan.folder}")
        if not plan.space and plan.custom_search_space is None:
            log.warning("nothing is searched: all trials are the same; give a range such as lr=interval(0.001,0.1)")
        interrupted, problem = False, None
        self._notify("on_study_start", study=study)
        try:
            if workers > 0:
                problem = self._launch(plan, workers)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            end = INTERRUPTED if interrupted else LOST
            search.give_up_lost(end, own=True)
            if interrupted or problem is not None:
                self._give_up_dying(search, end)
            write_results(study, Path(plan.folder))
            loader, report = self.hydra_context.config_loader, None
            if self.settings["report"] and not interrupted:
                report = write_report(study, plan, loader, self.config, self.settings["target"])
            ended_by = search.ended_by(search.tally())
            good = ended_by not in (None, FAILURES)
            status = "FINISHED" if good else "KILLED" if interrupted else "FAILED"
            try:
                self._notify("on_study_end", study=study, status=status)
            except InputError as error:  # a tracker's: what was found is to be shown all the same
                log.warning("%s", error)
        if report is not None:
            say(f"report: {report}")
        self._conclude(search, plan, interrupted, problem)

    def _workers(self, left: int) -> int:
        """How many workers for so many trials, by the rule that ``n_jobs`` documents."""
        asked = self.settings["n_jobs"]
        in_process = "hydra/launcher=basic" in self.config.hydra.overrides.hydra
        automatic = len(machine.gpus()) or machine.cores()
        workers = 1 if in_process else min(automatic if asked is None else asked, left)
        if workers > 1 and self._launches_local:
            try:
                cloudpickle.dumps((self.task_function, self.hydra_context, self.config))
            except Exception as error:  # of whatever the task's module holds
                log.warning("one worker only, in this process: the task cannot be sent to others: %s", one_line(error))
                return 1
        return workers

    @property
    def _launches_local(self) -> bool:
        """Whether several workers get our launcher instead of Hydra's default, which has one process."""
        return bool(self.config.hydra.runtime.choices["hydra/launcher"] == "basic")

    def _launch(self, plan: Plan, workers: int) -> str | None:
        """Have the workers do their work; gives what kept one of them from it."""
        folders = Path(plan.folder) / "workers"
        folders.mkdir(parents=True, exist_ok=True)
        first = _reserve(folders, workers)
        worker = Worker(plan, self.task_function, self.hydra_context, self.config, first, workers)
        launcher = self._launcher(worker, workers)
        job = [*self.first, "hydra.sweep.subdir=workers/${hydra.job.num}"]
        with Live(plan.open(), alone=isinstance(launcher, LocalLauncher)):
            try:
                returned = launcher.launch([job] * workers, initial_job_idx=first)
            except Exception as error:  # joblib's, if one of its processes was killed
                return f"{type(error).__name__}: {error}"
        return next((_cause(job._return_value) for job in returned if job.status == JobStatus.FAILED), None)

    @staticmethod
    def _give_up_dying(search: Search, reason: str) -> None:
        """Wait a little for what still runs: other people's launchers do not wait for processes that they kill."""
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            ray.shutdown()  # its processes would end with this one only
        end = time.monotonic() + DYING_S
        while search.tally().running and time.monotonic() < end:
            time.sleep(0.1)
            search.give_up_lost(reason)

    def _launcher(self, worker: Worker, workers: int) -> Launcher:
        """The launcher that is configured, or ours."""
        # The callbacks are for trials, not for the jobs that run them.
        context = HydraContext(self.hydra_context.config_loader, Callbacks(), self.hydra_context.execution_whitelist)
        if not self._launches_local or workers == 1:
            logging.getLogger("hydra._internal.core_plugins.basic_launcher").setLevel(logging.WARNING)
            return Plugins.instance().instantiate_launcher(context, worker, self.config)
        launcher = LocalLauncher()
        launcher.setup(hydra_context=context, task_function=worker, config=self.config)
        return launcher

    def _notify(self, event: str, **facts: Any) -> None:
        """Tell Hydra's callbacks that know more events than Hydra's own; unlike there, what they raise counts."""
        for callback in self.hydra_context.callbacks.callbacks:
            if hasattr(callback, event):
                getattr(callback, event)(config=self.config, **facts)

    def _conclude(self, search: Search, plan: Plan, interrupted: bool, problem: str | None) -> None:
        tally = search.tally()
        ended_by = search.ended_by(tally)
        for line in summary(search.study, plan, self.hydra_context.config_loader, self.config):
            say(line)
        if (target := self.settings["target"]) is not None:
            say(passed(search.study, target))
        failed = [f"{tally.failed} of {tally.counted} trials failed:", *why_failed(tally.reasons)]
        state = f"{tally.counted} of {search.n_trials} trials finished"
        if interrupted:
            say(f"interrupted: {state}; the same command goes on")
            sys.exit(130)
        if ended_by == FAILURES:
            raise SweepError(
                f"error: {tally.failed} of {tally.counted} trials failed, more than "
                f"hydra.sweeper.max_failure_rate={plan.goals.max_failure_rate} allows:\n  "
                + "\n  ".join(failed[1:])
                + f"\nTheir tracebacks are in their folders in {plan.folder}. Mend the cause; then delete this study, "
                "search under another study_name, or go on with a higher rate."
            )
        if tally.failed:
            say("\n  ".join(failed))
        if ended_by is None or (problem is not None and ended_by != TOTAL):
            why = "" if problem is None else f" ({one_line(problem)})"
            raise SweepError(f"error: the workers ended early{why}: {state}; the same command goes on")
        say(f"ended by {ENDS[ended_by].format(**self.settings)}: {state}")
        if tally.best is None:
            complete = any(trial.state == TrialState.COMPLETE for trial in search.study.get_trials(deepcopy=False))
            what = "keeps all constraints" if complete else "came to a value"
            raise SweepError(f"error: none of {tally.counted} trials {what} ({tally.pruned} were pruned)")


def say(line: str) -> None:
    """Print a line; that nobody reads it any more is no reason to fail."""
    with suppress(BrokenPipeError):
        print(line, flush=True)


def _cause(error: object) -> str:
    """What an error says, without the class that a traceback's last line names."""
    return str(error).removeprefix("iolaus.worker.NoProposalError: ").removeprefix("iolaus.current.MismatchError: ")


def _note(plan: Plan, study: Study) -> None:
    """Keep in a study what its workers, its report and a later command ask of its plan."""
    if study.user_attrs.get(STUDY_FOLDER) != plan.folder:
        study.set_user_attr(STUDY_FOLDER, plan.folder)
    before = study.user_attrs.get(GOALS, {})
    if before.get("n_trials", plan.goals.n_trials) != plan.goals.n_trials and study.user_attrs.get(GROWN):
        study.set_user_attr(GROWN, plan.goals.n_trials)  # this command asks for another total
    if before != asdict(plan.goals):
        study.set_user_attr(GOALS, asdict(plan.goals))


def _reserve(folders: Path, count: int) -> int:
    """Make folders for so many workers, with numbers that nobody else has, and give the first of them."""
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


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end a sweep as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
