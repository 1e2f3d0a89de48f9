"""A sweep from its command line to its summary: which study it is, who works on it, what came of it."""

import copy
import logging
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import StorageInternalError
from optuna.study import Study
from optuna.trial import TrialState

from iolaus.compare import finals, variants
from iolaus.compare.multi_seed import MultiSeedPlan, left, open_part, queue, ran, require_seed
from iolaus.errors import InputError, one_line, redact_urls
from iolaus.search_space.enqueue import ENQUEUE, known_settings
from iolaus.search_space.overrides import replace_overrides
from iolaus.search_space.parse import SpaceParser
from iolaus.study import attributes
from iolaus.study.attributes import COMMAND, ENDED, FINALS, GOALS, GROWN, INTERRUPTED, LOST, RESULTS, STUDY_FOLDER, TEST
from iolaus.study.identity import Direction, directions_of, open_study
from iolaus.study.plan import Plan, claimed
from iolaus.study.queue import ENDS, FAILURES, TOTAL, TrialQueue, enqueue
from iolaus.study.storage import open_storage
from iolaus.study.trials import why_failed
from iolaus.sweep.dry_run import dry_comparison, dry_run
from iolaus.sweep.launch import WorkerPool, give_up_dying, wait_for_others
from iolaus.sweep.planner import Planner, set_folder
from iolaus.sweep.summary import command as shown_command
from iolaus.sweep.summary import overrides_of, passed, summary, this_command, write_report, write_results
from iolaus.system.machine import cores

log = logging.getLogger(__name__)


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
        command = SpaceParser(self.settings, arguments, self.hydra_context.config_loader, self.config)
        planner = Planner(command, self.settings, self.hydra_context, self.config)
        plan, facts = planner.plan()
        self.launch = WorkerPool(self.settings, self.hydra_context, self.task_function, planner.branches[0])
        self._ask("on_search_start", directions=planner.directions, target=self.settings["target"])  # it may refuse
        if self.settings["variants"] is not None:
            self._compare(plan, planner.directions, facts)
            return
        typed = any(override.startswith(ENQUEUE) for override in self.config.hydra.overrides.hydra)
        named = () if typed else command.named  # who types both is told of a mistake
        first = known_settings(self.settings["enqueue"], plan.space, command.default_of, plan.fixed, named)
        final = finals.read(self.settings["finals"], planner.directions, plan.goals.n_trials, self.config)
        if self.settings["dry_run"]:
            workers = self.launch.workers(plan.goals.n_trials, self.config)
            for line in dry_run(
                plan, planner.branches, self.hydra_context, self.config, workers, self.settings["timeout_s"]
            ):
                say(line)
            if final is not None:
                each = f"then the best {final.k} settings with {final.r} new seeds each"
                say(f"{each}, and the winner with {final.n_test} seeds on test")
            return
        with claimed(plan):
            study = self._opened(plan, planner.directions, facts)
            plan = plan.begun(study)
            _note(plan, study)
            enqueue(study, first)
        if not plan.space and plan.custom_search_space is None:
            log.warning("nothing is searched: all trials are the same; give a range such as lr=interval(0.001,0.1)")
        if final is None or not finals.may_follow(plan.open(study._storage), self.settings):
            self._search(plan, study)
        if final is not None:
            self._confirm(final, plan, study)

    def _opened(self, plan: Plan, directions: Sequence[Direction], facts: Mapping[str, str]) -> Study:
        storage, name = open_storage(plan.storage), plan.study_name
        return open_study(storage, name, directions, facts, self.settings["on_mismatch"], plan.space)

    def _search(self, plan: Plan, study: Study) -> None:
        """Search until there is nothing left to claim, and show the best."""

        def leave(interrupted: bool) -> None:
            write_results(study, Path(plan.folder))
            if self.settings["report"] and not interrupted:
                self._report(plan, study)

        search, interrupted, problem = self._work(plan, study, self.config, leave)
        self._conclude(search, plan, interrupted, problem)

    def _work(
        self, plan: Plan, study: Study, config: DictConfig, leave: Callable[[bool], None]
    ) -> tuple[TrialQueue, bool, str | None]:
        """Have workers go through a plan whose study is there.

        Args:
            plan: As it begins.
            study: Its study.
            config: From which its trials are composed.
            leave: Called when nobody is at work any more, with whether the user has interrupted it.

        Returns:
            The search, whether it was interrupted, and what kept a worker from its work.
        """
        search = plan.open(study._storage)
        search.fail_lost_trials()
        tally = search.tally()
        over = search.ended_by(tally) is not None
        workers = 0 if over else self.launch.workers(search.n_trials - tally.counted, config)
        state = f"{tally.counted} of {search.n_trials} trials finished"
        say(f"study {plan.study_name}: {state}; {workers} workers; {plan.folder}")
        interrupted, problem = False, None
        self._ask("on_study_start", config, study=study)
        try:
            if workers > 0:
                problem = self.launch.run(plan, study._storage, workers, config)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            end = INTERRUPTED if interrupted else LOST
            search.fail_lost_trials(end, own=True)
            if interrupted or problem is not None:
                give_up_dying(search, end)
            leave(interrupted)
            good = search.ended_by(search.tally()) not in (None, FAILURES)
            self._end(config, study, "FINISHED" if good else "KILLED" if interrupted else "FAILED")
        return search, interrupted, problem

    def _end(self, config: DictConfig, study: Study, status: str) -> None:
        """Have the tracker end a study's run."""
        try:
            self._ask("on_study_end", config, study=study, status=status)
        except InputError as error:  # what was found is to be shown all the same
            log.warning("%s", error)

    def _report(self, plan: Plan, study: Study) -> None:
        loader, target = self.hydra_context.config_loader, self.settings["target"]
        self._ask("on_report", study=study)
        report = write_report(study, plan, loader, self.config, target)
        if report is not None:
            say(f"report: {report}")

    def _run_list(
        self, plan: MultiSeedPlan, study: Study, settings: Collection[Sequence[str]], seeds: Sequence[int]
    ) -> None:
        """Run all of a list, or end the command: the same one then goes on."""
        config = self.config
        if plan.folder != str(Path(config.hydra.sweep.dir)):
            config = copy.deepcopy(config)
            set_folder(config, Path(plan.folder))
        _note(plan, study)
        search, interrupted, problem = self._work(plan, study, config, lambda interrupted: None)
        tally = search.tally()
        state = f"{tally.counted} of {search.n_trials} trials of {plan.study_name} finished"
        if interrupted:
            say(f"interrupted: {state}; the same command goes on")
            sys.exit(130)
        if left(study, settings, seeds) > 0:
            why = "" if problem is None else f" ({one_line(problem)})"
            raise SweepError(f"error: the workers ended early{why}: {state}; the same command goes on")
        if tally.failed:
            say("\n  ".join([f"{tally.failed} of {tally.counted} trials failed:", *why_failed(tally.reasons)]))

    def _part(
        self, plan: Plan, study: Study, part: str, settings: Mapping[str, Sequence[str]], seeds: Sequence[int]
    ) -> tuple[MultiSeedPlan, Study]:
        """Run a list that follows a search, in a study of its own."""
        directions: Sequence[Direction] = ["maximize"] if part == TEST else directions_of(study)
        opened, runs = open_part(plan, study, part, directions)
        listed = queue(opened, runs, settings, seeds)
        self._run_list(listed, runs, settings.values(), seeds)
        return listed, runs

    def _confirm(self, final: finals.Rule, plan: Plan, study: Study) -> None:
        """Run the best settings again with new seeds, and the winner as it is to be used."""
        wait_for_others(plan.open(study._storage))  # what they come to may be better
        chosen = finals.select(study, final.k, lambda trial: overrides_of(trial, plan))
        seed = int(plan.fixed["seed"]) if "seed" in plan.fixed else require_seed(self.config)
        all_seeds = finals.seeds_of(study, max(final.r, final.n_test), seed, self.settings["repeats"])
        seeds, test_seeds = all_seeds[: final.r], all_seeds[: final.n_test]
        again, runs = self._part(
            plan, study, FINALS, {f"as trial {number}": it for number, it in chosen.items()}, seeds
        )
        found = finals.compare_finalists(study, chosen, seeds, again, runs)
        for line in finals.lines(found):
            say(line)
        winner = chosen[found["winner"]]
        results = [trial.user_attrs.get(RESULTS, {}) for trial in ran(again, runs, winner, seeds).values()]
        last = self._ask("final_overrides", results=results)
        if last is not None:
            setting = replace_overrides(winner, last)
            test, runs = self._part(plan, study, TEST, {"the winner": setting}, test_seeds)
            found |= finals.tested(test, runs, setting, test_seeds)
            trials = list(ran(test, runs, setting, test_seeds).values())
            found |= self._ask("on_winner", study=study, found=found, results=results, trials=trials) or {}
            for line in finals.last_lines(found):
                say(line)
        if study.user_attrs.get(attributes.FINALS_RESULT) != found:
            study.set_user_attr(attributes.FINALS_RESULT, found)
        if self.settings["report"]:
            self._report(plan, study)
        self._end(self.config, study, "FINISHED")
        say(f"the winner's settings once more:  {shown_command(winner, self.hydra_context.config_loader, self.config)}")

    def _compare(self, plan: Plan, directions: Sequence[Direction], facts: Mapping[str, str]) -> None:
        """Run settings that are listed, each with some seeds, and compare each with the first."""
        if len(directions) > 1:
            raise InputError(f"hydra.sweeper.variants needs one objective, but there are {len(directions)}")
        found = variants.listed_by(self.settings["variants"], plan, self.hydra_context, self.config)
        seeds = variants.seeds(self.settings["seeds"], self._composed(plan))
        if self.settings["dry_run"]:
            workers = self.launch.workers(len(found) * len(seeds), self.config)
            for line in dry_comparison(plan, found, seeds, self.hydra_context, self.config, workers):
                say(line)
            return
        with claimed(plan):
            study = self._opened(plan, directions, facts)
        listed = queue(plan, study, found, seeds)
        self._run_list(listed, study, found.values(), seeds)
        comparison = variants.compare_settings(listed, study, found, seeds)
        if study.user_attrs.get(attributes.COMPARISON_RESULT) != comparison:
            study.set_user_attr(attributes.COMPARISON_RESULT, comparison)
        for line in variants.lines(comparison):
            say(line)
        if self.settings["report"]:
            self._report(plan, study)
            self._end(self.config, study, "FINISHED")

    def _composed(self, plan: Plan) -> DictConfig:
        """The configuration of a trial without parameters."""
        return self.hydra_context.config_loader.load_sweep_config(self.config, plan.overrides({}))

    def _ask(self, event: str, config: DictConfig | None = None, **facts: Any) -> Any:
        """Tell Hydra's callbacks that know more events than Hydra's own, and give what one of them answers.

        Unlike with Hydra's own events, what they raise counts.
        """
        answer = None
        for callback in self.hydra_context.callbacks.callbacks:
            if hasattr(callback, event):
                told = getattr(callback, event)(config=self.config if config is None else config, **facts)
                answer = told if answer is None else answer
        return answer

    def _conclude(self, search: TrialQueue, plan: Plan, interrupted: bool, problem: str | None) -> None:
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
        ended = finals.ended(search, self.settings, ended_by)
        if search.study.user_attrs.get(ENDED) != ended:
            search.study.set_user_attr(ENDED, ended)
        if tally.best is None:
            complete = any(trial.state == TrialState.COMPLETE for trial in search.study.get_trials(deepcopy=False))
            what = "keeps all constraints" if complete else "came to a value"
            raise SweepError(f"error: none of {tally.counted} trials {what} ({tally.pruned} were pruned)")


def say(line: str) -> None:
    """Print a line; that nobody reads it any more is no reason to fail."""
    with suppress(BrokenPipeError):
        print(line, flush=True)


def _note(plan: Plan, study: Study) -> None:
    """Keep in a study what its workers, its report and a later command ask of its plan."""
    if study.user_attrs.get(STUDY_FOLDER) != plan.folder:
        study.set_user_attr(STUDY_FOLDER, plan.folder)
    command = {"command": redact_urls(this_command()), "cores": cores()}
    if study.user_attrs.get(COMMAND) != command:
        study.set_user_attr(COMMAND, command)
    before = study.user_attrs.get(GOALS, {})
    if before.get("n_trials", plan.goals.n_trials) != plan.goals.n_trials and study.user_attrs.get(GROWN):
        study.set_user_attr(GROWN, plan.goals.n_trials)  # this command asks for another total
    if before != asdict(plan.goals):
        study.set_user_attr(GOALS, asdict(plan.goals))


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
