"""One command at work: its settings, its workers and the app's callbacks, which every kind of sweep needs."""

import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from optuna.study import Study

from iolaus.compare.multi_seed import MultiSeedPlan, count_left
from iolaus.errors import InputError, one_line, redact_urls
from iolaus.optuna_internals import storage_of
from iolaus.search_space.compose import Composer
from iolaus.study.attributes import COMMAND, GOALS, GROWN, INTERRUPTED, LOST, STUDY_FOLDER
from iolaus.study.identity import Direction, open_study
from iolaus.study.plan import Plan
from iolaus.study.queue import FAILURES, TrialQueue
from iolaus.study.storage import open_storage
from iolaus.study.tally import Tally
from iolaus.study.trials import why_failed
from iolaus.sweep.launch import WorkerPool, fail_dying_trials
from iolaus.sweep.summary import this_command, write_report
from iolaus.system.machine import cores

log = logging.getLogger(__name__)


class SweepError(CompactHydraException):
    """Ends a sweep with its message: Hydra prints nothing else of it."""


@dataclass(frozen=True)
class WorkResult:
    """The end of the workers' work on a study.

    Args:
        queue: Its trials.
        interrupted: Whether the user has ended it.
        problem: The error that kept a worker from its work, if any.
    """

    queue: TrialQueue
    interrupted: bool
    problem: str | None

    def progress(self, tally: Tally, of: str = "") -> str:
        """Return how many trials have finished, in words."""
        return f"{tally.counted} of {self.queue.n_trials} trials{of} finished"

    def ended_early(self, progress: str) -> SweepError:
        """Return the error that says that there is work left, and why."""
        why = "" if self.problem is None else f" ({one_line(self.problem)})"
        return SweepError(f"error: the workers ended early{why}: {progress}; the same command goes on")


class Session:
    """One command at work.

    Args:
        settings: The keys of ``hydra.sweeper``.
        hydra_context: Hydra's.
        task_function: Run for each trial.
        composer: Composes the sweep's trials.
        first: The overrides of a trial that can be composed.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        hydra_context: HydraContext,
        task_function: TaskFunction,
        composer: Composer,
        first: Sequence[str],
    ) -> None:
        """Keep what the command works with."""
        self.settings, self.composer = settings, composer
        self.whitelist = hydra_context.execution_whitelist
        self.callbacks = hydra_context.callbacks.callbacks
        self.pool = WorkerPool(settings, hydra_context, task_function, first)

    def ask(self, event: str, composer: Composer | None = None, **facts: Any) -> Any:
        """Tell the app's callbacks an event that Hydra does not know, and return what one of them answers.

        Unlike with Hydra's own events, an exception of theirs is raised.
        """
        answer = None
        for callback in self.callbacks:
            if hasattr(callback, event):
                told = getattr(callback, event)(config=(composer or self.composer).sweep_config, **facts)
                answer = told if answer is None else answer
        return answer

    def open_study(self, plan: Plan, directions: Sequence[Direction], facts: Mapping[str, str]) -> Study:
        """Open the study of a plan, or make it."""
        storage, on_mismatch = open_storage(plan.storage), self.settings["on_mismatch"]
        return open_study(storage, plan.study_name, directions, facts, on_mismatch, plan.space)

    def work(
        self,
        plan: Plan,
        study: Study,
        composer: Composer | None = None,
        on_end: Callable[[bool], None] = lambda interrupted: None,
    ) -> WorkResult:
        """Have workers go through a plan whose study is there.

        Args:
            plan: As it begins.
            study: Its study.
            composer: Composes its trials; None: the command's.
            on_end: Called once nobody is at work any more, with whether the user has interrupted it.
        """
        composer = composer or self.composer
        queue = plan.open(storage_of(study))
        queue.fail_lost_trials()
        tally = queue.tally()
        over = queue.ended_by(tally) is not None
        workers = 0 if over else self.pool.workers(queue.n_trials - tally.counted, composer)
        progress = f"{tally.counted} of {queue.n_trials} trials finished"
        say(f"study {plan.study_name}: {progress}; {workers} workers; {plan.folder}")
        interrupted, problem = False, None
        self.ask("on_study_start", composer, study=study)
        try:
            if workers > 0:
                problem = self.pool.run(plan, storage_of(study), workers, composer)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            end = INTERRUPTED if interrupted else LOST
            queue.fail_lost_trials(end, own=True)
            if interrupted or problem is not None:
                fail_dying_trials(queue, end)
            on_end(interrupted)
            good = queue.ended_by(queue.tally()) not in (None, FAILURES)
            self.end(study, "FINISHED" if good else "KILLED" if interrupted else "FAILED", composer)
        return WorkResult(queue, interrupted, problem)

    def run_all(
        self, plan: MultiSeedPlan, study: Study, settings: Collection[Sequence[str]], seeds: Sequence[int]
    ) -> None:
        """Run each setting with each seed, or end the command: the same one then goes on.

        Raises:
            SweepError: if the workers ended before all runs had.
        """
        note(plan, study)
        result = self.work(plan, study, self.composer.in_folder(Path(plan.folder)))
        tally = result.queue.tally()
        progress = result.progress(tally, of=f" of {plan.study_name}")
        if result.interrupted:
            leave_interrupted(progress)
        if count_left(study, settings, seeds) > 0:
            raise result.ended_early(progress)
        if tally.failed:
            say("\n  ".join(failures(tally)))

    def report(self, plan: Plan, study: Study) -> None:
        """Write the report of a study."""
        self.ask("on_report", study=study)
        page = write_report(study, plan, self.composer, self.settings["target"])
        if page is not None:
            say(f"report: {page}")

    def end(self, study: Study, status: str, composer: Composer | None = None) -> None:
        """Tell the app's callbacks that the work on a study has ended."""
        try:
            self.ask("on_study_end", composer, study=study, status=status)
        except InputError as error:  # the results are to be shown all the same
            log.warning("%s", error)


def say(line: str) -> None:
    """Print a line; that nobody reads it any more is no reason to fail."""
    with suppress(BrokenPipeError):
        print(line, flush=True)


def leave_interrupted(progress: str) -> None:
    """End the command as Ctrl-C does, with a line on what there is."""
    say(f"interrupted: {progress}; the same command goes on")
    sys.exit(130)


def failures(tally: Tally) -> list[str]:
    """Return how many trials failed and, most frequent first, why."""
    return [f"{tally.failed} of {tally.counted} trials failed:", *why_failed(tally.reasons)]


def note(plan: Plan, study: Study) -> None:
    """Store in a study what its workers, its report and a later command ask of its plan."""
    goals, before = asdict(plan.goals), study.user_attrs.get(GOALS, {})
    if before.get("n_trials", plan.goals.n_trials) != plan.goals.n_trials and study.user_attrs.get(GROWN):
        store(study, GROWN, plan.goals.n_trials)  # this command asks for another total
    store(study, STUDY_FOLDER, plan.folder)
    store(study, COMMAND, {"command": redact_urls(this_command()), "cores": cores()})
    store(study, GOALS, goals)


def store(study: Study, name: str, value: Any) -> None:
    """Store an attribute of a study unless it is there: each write costs a line of the journal for ever."""
    if study.user_attrs.get(name) != value:
        study.set_user_attr(name, value)
