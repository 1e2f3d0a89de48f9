"""A command that sweeps: its plan is made, and the work that it asks for begins."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import StorageInternalError
from optuna.study import Study

from iolaus.compare import finals
from iolaus.errors import InputError, one_line
from iolaus.optuna_internals import storage_of
from iolaus.search_space.compose import Composer
from iolaus.search_space.enqueue import ENQUEUE, known_settings
from iolaus.search_space.parse import SpaceParser
from iolaus.study.plan import Plan, claim_lock
from iolaus.study.queue import enqueue
from iolaus.sweep.comparison import compare
from iolaus.sweep.dry_run import dry_run
from iolaus.sweep.follow_up import confirm
from iolaus.sweep.planner import Planner
from iolaus.sweep.search import search
from iolaus.sweep.session import Session, SweepError, note, say

log = logging.getLogger(__name__)


class Sweep:
    """One command that sweeps.

    Args:
        settings: The keys of ``hydra.sweeper``.
        hydra_context: Hydra's.
        task_function: Run for each trial.
        sweep_config: The configuration of the sweep.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        hydra_context: HydraContext,
        task_function: TaskFunction,
        sweep_config: DictConfig,
    ) -> None:
        """Keep what Hydra gives a sweeper."""
        plain = OmegaConf.to_container(OmegaConf.create(dict(settings), flags={"allow_objects": True}), resolve=True)
        assert isinstance(plain, dict)
        self.settings: dict[str, Any] = {str(key): value for key, value in plain.items()}
        self.hydra_context, self.task_function = hydra_context, task_function
        self.composer = Composer(hydra_context.config_loader, sweep_config)

    def run(self, arguments: Sequence[str]) -> None:
        """Do what the command asks for: a dry run, a comparison, or a search with its finals.

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
        parser = SpaceParser(self.settings, arguments, self.composer)
        planner = Planner(parser, self.settings, self.composer, self.hydra_context.execution_whitelist)
        plan, facts = planner.plan()
        session = Session(self.settings, self.hydra_context, self.task_function, self.composer, planner.branches[0])
        session.ask("on_search_start", directions=planner.directions, target=self.settings["target"])  # it may refuse
        if self.settings["variants"] is not None:
            compare(session, plan, planner.directions, facts)
            return
        first = self._enqueued(parser, plan)
        rule = finals.read(self.settings["finals"], planner.directions, plan.goals.n_trials, self.composer.sweep_config)
        if self.settings["dry_run"]:
            for line in dry_run(session, plan, planner.branches, rule):
                say(line)
            return
        plan, study = self._begin(session, planner, plan, facts, first)
        if rule is None or not finals.has_ended(plan.open(storage_of(study)), self.settings):
            search(session, plan, study)
        if rule is not None:
            confirm(session, rule, plan, study)

    def _enqueued(self, parser: SpaceParser, plan: Plan) -> list[dict[str, Any]]:
        """Return the parameters that are tried first."""
        typed = any(override.startswith(ENQUEUE) for override in self.composer.sweep_config.hydra.overrides.hydra)
        named = () if typed else parser.named  # who types both is told of a mistake
        return known_settings(self.settings["enqueue"], plan.space, parser.default_of, plan.fixed, named)

    def _begin(
        self,
        session: Session,
        planner: Planner,
        plan: Plan,
        facts: Mapping[str, str],
        first: Sequence[Mapping[str, Any]],
    ) -> tuple[Plan, Study]:
        """Open the study, and put known settings first; returns the plan as it begins."""
        with claim_lock(plan):
            study = session.open_study(plan, planner.directions, facts)
            plan = plan.begun(study)
            note(plan, study)
            enqueue(study, first)
        if not plan.space and plan.custom_search_space is None:
            log.warning("nothing is searched: all trials are the same; give a range such as lr=interval(0.001,0.1)")
        return plan, study


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
