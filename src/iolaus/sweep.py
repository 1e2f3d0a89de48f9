"""A sweep from its command line to its summary: which study it is, who works on it, what came of it."""

import json
import logging
import math
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

import cloudpickle
import optuna
from filelock import FileLock
from hydra._internal.callbacks import Callbacks
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import StorageInternalError

from hydra_plugins.iolaus_local import LocalLauncher
from iolaus import machine
from iolaus.errors import InputError, is_number, require
from iolaus.journal import absolute, open_storage
from iolaus.live import Live, best_of, why_failed
from iolaus.plan import Plan, first_value, grid, one_line, overrides, parse, settings_of
from iolaus.search import INTERRUPTED, LOST, Search
from iolaus.study import STUDY_FOLDER, Direction, digest, identity, open_study, seed_of
from iolaus.summary import summary, write_results
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
        self.settings = plain
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
        directions = self._directions()
        plan, facts = self._plan(arguments, directions)
        self._notify("on_search_start", directions=directions)  # it may refuse
        storage = open_storage(plan.storage)
        Path(plan.folder).mkdir(parents=True, exist_ok=True)
        with FileLock(Path(plan.folder) / "claim.lock"):  # of two commands at once, one makes the study
            study = open_study(storage, plan.study_name, directions, facts, self.settings["on_mismatch"], plan.space)
            if plan.seed is None:
                plan = plan.with_seed(seed_of(study))
            if study.user_attrs.get(STUDY_FOLDER) != plan.folder:
                study.set_user_attr(STUDY_FOLDER, plan.folder)
        search = plan.open()
        search.give_up_lost()
        tally = search.tally()
        workers = 0 if search.is_over(tally) else self._workers(plan.n_trials - tally.counted)
        state = f"{tally.counted} of {plan.n_trials} trials finished"
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
            status = "FINISHED" if search.has_succeeded(search.tally()) else "KILLED" if interrupted else "FAILED"
            try:
                self._notify("on_study_end", study=study, status=status)
            except InputError as error:  # a tracker's: what was found is to be shown all the same
                log.warning("%s", error)
        self._conclude(search, plan, interrupted, problem)

    def _plan(self, arguments: Sequence[str], directions: Sequence[Direction]) -> tuple[Plan, dict[str, str]]:
        """What is to be searched, and the identity of its study; everything is checked that can be."""
        given = self.settings
        counts = {"n_trials": given["n_trials"], "n_jobs": 1 if given["n_jobs"] is None else given["n_jobs"]}
        for key, value in counts.items():
            require(value >= 1, f"hydra.sweeper.{key}", "at least 1", value)
        rate = given["max_failure_rate"]
        require(is_number(rate) and 0 <= rate <= 1, "hydra.sweeper.max_failure_rate", "in [0, 1]", rate)

        space: dict[str, BaseDistribution] = {}
        fixed: dict[str, str] = {}
        deletions: list[str] = []
        for override in [*(f"{key}={value}" for key, value in (given["params"] or {}).items()), *arguments]:
            searched, constant, deleted = parse(override, self.hydra_context.config_loader)
            for name in [*searched, *constant]:  # of two for the same key the later one holds
                for earlier in (space, fixed):
                    for same in [key for key in earlier if key.lstrip("+") == name.lstrip("+")]:
                        del earlier[same]
            space |= searched
            fixed |= constant
            self._check_options(searched)
            deletions += deleted

        sampler = dict(given["sampler"])
        n_trials = given["n_trials"]
        if sampler["_target_"] == "optuna.samplers.GridSampler":
            try:
                n_trials = min(n_trials, math.prod(len(values) for values in grid(space).values()))
            except ValueError as error:
                raise InputError(f"hydra/sweeper/sampler=grid: {error}") from error

        first = {name: first_value(distribution) for name, distribution in space.items()}
        self.first = overrides(first, fixed, deletions)
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, self.first)  # a misspelt key, say
        facts = identity(space, directions, self._shared(composed, space, fixed))
        name = given["study_name"]
        if name is None:
            chosen = OmegaConf.select(self.config.hydra.runtime.choices, "hparams_search") or self.config.hydra.job.name
            name = f"{chosen}-{digest({**facts, 'sampler': json.dumps(sampler, sort_keys=True, default=str)})}"
        require(name.strip(". ") != "", "hydra.sweeper.study_name", "a name that a folder may have", repr(name))
        folder = self._set_folder(name)
        plan = Plan(
            storage=absolute(given["storage"] or str(folder / "journal.log")),
            study_name=name,
            folder=str(folder),
            n_trials=n_trials,
            max_failure_rate=rate,
            space=space,
            fixed=fixed,
            deletions=deletions,
            custom_search_space=given["custom_search_space"],
            sampler=sampler,
            seed=sampler.get("seed"),
        )
        plan.check(self.hydra_context.execution_whitelist)
        return plan, facts

    def _directions(self) -> list[Direction]:
        given = self.settings["direction"]
        directions: list[Direction] = []
        require(given != [], "hydra.sweeper.direction", "minimize or maximize, for each objective", given)
        for direction in given if isinstance(given, list) else [given]:
            name: Any = direction.name if isinstance(direction, Enum) else direction
            require(name in ("minimize", "maximize"), "hydra.sweeper.direction", "minimize or maximize", name)
            directions.append(name)
        return directions

    def _check_options(self, searched: Mapping[str, BaseDistribution]) -> None:
        """Look whether what a group is chosen from is there: only the first choice is composed before the search."""
        for name, distribution in searched.items():
            options = self.hydra_context.config_loader.get_group_options(name.lstrip("+").split("@")[0])
            for choice in distribution.choices if isinstance(distribution, CategoricalDistribution) else []:
                if options and isinstance(choice, str) and "," not in choice and choice not in (*options, "null"):
                    raise InputError(f"{name}={choice} is none of its options: {', '.join(options)}")

    def _shared(self, composed: DictConfig, space: Mapping[str, Any], fixed: Mapping[str, str]) -> dict[str, Any]:
        """What all trials have in common: the configuration of any of them, but for what is searched."""
        searched = tuple(name.lstrip("+").split("@")[0].replace("/", ".") for name in space)
        shared = {
            name: value
            for name, value in settings_of(composed).items()
            if not any(name == key or name.startswith(f"{key}.") for key in searched)
        }
        if self.settings["custom_search_space"] is not None:
            shared["custom_search_space"] = self.settings["custom_search_space"]
        return {**shared, **{name.lstrip("+"): value for name, value in fixed.items()}}

    def _set_folder(self, study_name: str) -> Path:
        """Make ``hydra.sweep.dir`` the study's, where it would be a new one for each command, and give it."""
        raw = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        assert isinstance(raw, dict)
        if "${now:" in raw["dir"]:
            name = re.sub(r"[^\w.+-]", "_", study_name)
            with read_write(self.config.hydra), open_dict(self.config.hydra):
                self.config.hydra.sweep.dir = raw["dir"][: raw["dir"].index("${now:")] + name
        folder = Path(self.config.hydra.sweep.dir).absolute()
        with read_write(self.config.hydra), open_dict(self.config.hydra):
            self.config.hydra.sweep.dir = str(folder)
            # Each trial is composed from these.
            quoted = QuotedString(str(folder), Quote.single).with_quotes()
            self.config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted}")
        return folder

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
        with Live(plan.open(), workers, alone=isinstance(launcher, LocalLauncher)):
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
        for line in summary(search.study, plan, self.hydra_context.config_loader, self.config):
            say(line)
        failed = [f"{tally.failed} of {tally.counted} trials failed:", *why_failed(tally.reasons)]
        state = f"{tally.counted} of {plan.n_trials} trials finished"
        if interrupted:
            say(f"interrupted: {state}; the same command goes on")
            sys.exit(130)
        if tally.fails_too_often(plan.max_failure_rate, plan.n_trials):
            raise SweepError(
                f"error: {tally.failed} of {tally.counted} trials failed, more than "
                f"hydra.sweeper.max_failure_rate={plan.max_failure_rate} allows:\n  "
                + "\n  ".join(failed[1:])
                + f"\nTheir tracebacks are in their folders in {plan.folder}. Mend the cause; then delete this study, "
                "search under another study_name, or go on with a higher rate."
            )
        if tally.failed:
            say("\n  ".join(failed))
        if problem is not None or tally.counted < plan.n_trials:
            why = "" if problem is None else f" ({one_line(problem)})"
            raise SweepError(f"error: the workers ended early{why}: {state}; the same command goes on")
        if best_of(search.study, search.study.get_trials(deepcopy=False)) is None:
            raise SweepError(f"error: none of {tally.counted} trials came to a value")


def say(line: str) -> None:
    """Print a line; that nobody reads it any more is no reason to fail."""
    with suppress(BrokenPipeError):
        print(line, flush=True)


def _cause(error: object) -> str:
    """What an error says, without the class that a traceback's last line names."""
    return str(error).removeprefix("iolaus.worker.NoProposalError: ").removeprefix("iolaus.current.MismatchError: ")


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
