"""The queue of a search: each trial is claimed by one worker, told its result once, and retried if it was lost.

All decisions depend only on what is in the study's storage, so that any process may be killed at any moment, and any
number of them may work on one study. These rules make the total exact:

- A trial *counts* if it is COMPLETE, PRUNED or FAIL, except a FAIL that says nothing about its parameters: its worker
  was ``lost`` (for the first two times), it was ``interrupted`` by the user, or it was ``surplus``.
- A lost or interrupted trial is retried by a new trial that names it; of several, the one with the smallest number is
  the retry. So each *setting*, a trial together with its retries, ends in exactly one trial that counts.
- A new setting is surplus if as many settings as were asked for have smaller numbers, and a retry is surplus if a
  smaller number retries the same trial. The worker that makes a trial looks at those with smaller numbers afterwards:
  numbers are given in order, so nothing can come between any more, and what was right once remains so. There can never
  be too many. A lock on one host makes surplus trials rare; it is not what makes the total exact.
- A trial carries the lease of its process from its first moment, or from the next if it was enqueued. Once that process
  cannot be alive, whichever worker notices makes the trial FAIL. It looks first whether the trial was surplus, in case
  its process was gone before it could look.
"""

import contextlib
import dataclasses
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from iolaus.optuna_internals import (
    FIXED_PARAMS,
    RUN_ATTRS,
    enqueued_params,
    forget_cached_trials,
    reseed,
    storage_of,
    study_id,
    trial_id,
)
from iolaus.study.attributes import (
    END,
    ENQUEUED,
    FOLDER,
    GROWN,
    LEASE,
    LOSSES,
    LOST,
    PREFIX,
    REASON,
    RETRY_OF,
    RNG_STREAM,
    STOPS,
    SURPLUS,
)
from iolaus.study.tally import Tally
from iolaus.study.trials import has_all_params, is_alive, is_ours, losses
from iolaus.system.lease import LEASE_S, lease

log = logging.getLogger(__name__)

OF_THE_RUN = (PREFIX, *RUN_ATTRS)
"""Beginnings of the names of system attributes that belong to a trial's run, not to the choice of its parameters."""

TOTAL, FAILURES, TARGET, PATIENCE, TIMEOUT, STOPPED = "total", "failures", "target", "patience", "timeout", "stopped"
"""Causes for the end of a search."""
ENDS = {
    TOTAL: "its total",
    FAILURES: "too many failures",
    TARGET: "hydra.sweeper.target={target}",
    PATIENCE: "hydra.sweeper.patience={patience}: so many trials without a better one",
    TIMEOUT: "hydra.sweeper.timeout_s={timeout_s}",
    STOPPED: "a request to stop",
}
"""The causes in words, with the fields of `Goals` or keys of ``hydra.sweeper`` that they name."""

POLL_S = 0.5
"""Seconds between two looks of an idle worker at the trials that others run."""


@dataclass(frozen=True)
class Goals:
    """The goals at which a search ends. Trials that run then are finished.

    Args:
        n_trials: The study's total.
        max_failure_rate: The share of failures, in [0, 1], above which nothing is claimed any more.
        target: A value to reach or pass.
        patience: The number of trials that may follow the best one.
        deadline: Seconds since the epoch.
        stops: The number of requests to stop that came before this search.
        limit: The number of trials that there can be, such as the points of a grid; None where there is no limit.
    """

    n_trials: int
    max_failure_rate: float = 0.0
    target: float | None = None
    patience: int | None = None
    deadline: float | None = None
    stops: int = 0
    limit: int | None = None


class TrialQueue:
    """The trials of a study, for those who run them.

    Args:
        study: With the sampler and the pruner that are to be used.
        goals: The goals of the search.
        seed: Of the sampler. Each trial has its own stream of random numbers, so that no two workers propose the same
            point.
        folder: The folder of the lock that the workers of a host share.
        attrs: User attributes of each new trial.
    """

    def __init__(
        self,
        study: Study,
        goals: Goals,
        seed: int,
        folder: Path,
        attrs: Mapping[str, str] | None = None,
    ) -> None:
        """Read the study; nothing is changed."""
        self.study, self.goals, self.seed = study, goals, seed
        self.n_trials = goals.n_trials
        """The total, which `tally` raises once the study has been asked to grow."""
        self.stops = goals.stops
        """The number of requests to stop the study, which `tally` updates as well."""
        self.attrs = {name: value for name, value in (attrs or {}).items() if name not in (FOLDER, REASON)}
        self._lock = FileLock(folder / "claim.lock", poll_interval=0.002)
        self._settled = Tally.of(study)

    @property
    def _storage(self) -> BaseStorage:
        return storage_of(self.study)

    def tally(self, before: int | None = None) -> Tally:
        """Return the tally of all trials, or of those with smaller numbers than `before`."""
        if before is None:
            asked = self._storage.get_study_user_attrs(study_id(self.study))
            self.n_trials = min(max(self.goals.n_trials, asked.get(GROWN, 0)), self.goals.limit or sys.maxsize)
            self.stops = asked.get(STOPS, 0)
        trials = self.study.get_trials(deepcopy=False)[:before]
        # What is finished does not change, so it is counted once.
        while self._settled.size < len(trials) and trials[self._settled.size].state.is_finished():
            self._settled.add(trials[self._settled.size])
        settled = self._settled
        tally = dataclasses.replace(
            settled,
            running=[],
            waiting=[],
            lost=settled.lost.copy(),
            retried=settled.retried.copy(),
            reasons=settled.reasons.copy(),
            ends=settled.ends.copy(),
        )
        for trial in trials[tally.size :]:
            tally.add(trial)
        return tally

    def ended_by(self, tally: Tally) -> str | None:
        """Return the cause for which the search has ended and nothing is left to claim; None while it continues."""
        goals = self.goals
        if tally.fails_too_often(goals.max_failure_rate, self.n_trials):
            return FAILURES
        if tally.counted >= self.n_trials:
            return TOTAL
        if goals.target is not None and tally.passes(goals.target):
            return TARGET
        if goals.patience is not None and tally.best is not None and tally.since_best >= goals.patience:
            return PATIENCE
        if self.stops > goals.stops:
            return STOPPED
        if goals.deadline is not None and time.time() >= goals.deadline:
            return TIMEOUT
        return None

    def claim(self) -> Trial | None:
        """Take the next trial, whose parameters are still to be suggested; None when the search is over.

        Waits while others run the last ones, which may have to be retried.
        """
        while True:
            with self._lock:
                self.fail_lost_trials()
                tally = self.tally()
                if self.ended_by(tally) is not None:
                    return None
                if tally.counted + len(tally.running) < self.n_trials:
                    lost, waiting = tally.pending, tally.waiting
                    claimed = self._pop(waiting[0]) if waiting and not lost else self._create(*lost[:1])
                    if claimed is not None:
                        return self._begin(*claimed)
                    continue
            time.sleep(POLL_S)

    def _pop(self, trial: FrozenTrial) -> tuple[int, int] | None:
        """Take the first enqueued trial; return its id and its stream, or None if another worker was faster.

        It is not surplus: all settings before it count or run, and these are too few.
        """
        storage, waiting = self._storage, trial_id(trial)
        with contextlib.suppress(UpdateFinishedTrialError):
            if storage.set_trial_state_values(waiting, TrialState.RUNNING):
                # Not before: it could take the place of the lease of somebody who is faster.
                storage.set_trial_system_attr(waiting, LEASE, lease())
                for name, value in self.attrs.items():
                    storage.set_trial_user_attr(waiting, name, value)
                return waiting, self.tally(before=trial.number).rng_streams
        return None

    def _create(self, lost: tuple[FrozenTrial, int] | None = None) -> tuple[int, int] | None:
        """Make a trial, a retry or a new one; return its id and its stream, or None if others were faster."""
        attrs: dict[str, Any] = {LEASE: lease()}
        if lost is not None:
            trial, rng_stream = lost
            # What samplers have stored, such as the point of a grid, belongs to the parameters.
            attrs |= {key: value for key, value in trial.system_attrs.items() if not key.startswith(OF_THE_RUN)}
            attrs |= {RETRY_OF: trial.number, RNG_STREAM: rng_stream, LOSSES: losses(trial)}
            # With some parameters only, the others would be drawn from other random numbers than they had been.
            if has_all_params(trial):
                attrs[FIXED_PARAMS] = {**enqueued_params(trial.system_attrs), **trial.params}
        template = create_trial(state=TrialState.RUNNING, user_attrs=self.attrs, system_attrs=attrs)
        made = self._storage.get_trial(self._storage.create_new_trial(study_id(self.study), template))
        older = self.tally(before=made.number)
        if not self._is_surplus(made, older):
            return trial_id(made), attrs.get(RNG_STREAM, older.rng_streams)
        self._end(made, SURPLUS, "others had been faster")
        return None

    def _is_surplus(self, trial: FrozenTrial, older: Tally) -> bool:
        retry_of = trial.system_attrs.get(RETRY_OF)
        return older.settings >= self.n_trials if retry_of is None else retry_of in older.retried

    def _begin(self, claimed: int, rng_stream: int) -> Trial:
        reseed(self.study.sampler, self.seed, rng_stream)
        forget_cached_trials(self.study)
        return Trial(self.study, claimed)

    @contextlib.contextmanager
    def lease_renewed(self, trial: Trial) -> Iterator[None]:
        """Renew a trial's lease from time to time, for workers on other hosts, which cannot see this process."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(LEASE_S / 4):
                try:
                    self._storage.set_trial_system_attr(trial_id(trial), LEASE, lease())
                except UpdateFinishedTrialError:
                    return
                except Exception as error:  # whatever a storage may raise: the next time it may be back
                    log.warning("the lease of trial %d could not be renewed: %s", trial.number, error)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def tell(self, trial: Trial, values: list[float]) -> bool:
        """Finish a trial with its values; return False if it was given up as lost meanwhile."""
        return self._finish(trial, TrialState.COMPLETE, values)

    def prune(self, trial: Trial) -> bool:
        """Finish a trial that was pruned; return False if it was given up as lost meanwhile."""
        return self._finish(trial, TrialState.PRUNED, None)

    def fail(self, trial: Trial, end: str, reason: str) -> bool:
        """Finish a trial that has no value; return False if it was given up as lost meanwhile.

        Args:
            trial: One that was claimed.
            end: FAILED, or INTERRUPTED, which does not count.
            reason: One line.
        """
        with contextlib.suppress(UpdateFinishedTrialError):
            self._note(trial, end, reason)
            return self._finish(trial, TrialState.FAIL, None)
        return False

    def _finish(self, trial: Trial, state: TrialState, values: list[float] | None) -> bool:
        if self._storage.get_trial(trial_id(trial)).state != TrialState.RUNNING:
            return False
        try:
            self.study.tell(trial, values, state)
        except UpdateFinishedTrialError:
            return False
        except ValueError:  # raised by Optuna if it was given up since the look above
            if self._storage.get_trial(trial_id(trial)).state == TrialState.RUNNING:
                raise
            return False
        except RuntimeError as error:  # GridSampler, which has no other way to say that the grid is complete
            if "Study.stop" not in str(error):
                raise
        return True

    def fail_lost_trials(self, end: str = LOST, own: bool = False) -> list[int]:
        """Make each trial FAIL whose process is gone, and return their numbers.

        Args:
            end: INTERRUPTED where the user is the cause.
            own: Include the trials of this process, whose worker has ended.
        """
        reason = "its worker was lost" if end == LOST else "interrupted"
        with self._lock:
            dead = [trial for trial in self.tally().running if not is_alive(trial) or (own and is_ours(trial))]
            for trial in dead:
                surplus = not has_all_params(trial) and self._is_surplus(trial, self.tally(before=trial.number))
                self._end(trial, SURPLUS if surplus else end, reason)
        return [trial.number for trial in dead]

    def _end(self, trial: FrozenTrial, end: str, reason: str) -> None:
        """Make a trial FAIL without telling the sampler, unless it has ended."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._note(trial, end, reason)
            self._storage.set_trial_state_values(trial_id(trial), TrialState.FAIL)

    def _note(self, trial: Trial | FrozenTrial, end: str, reason: str) -> None:
        self._storage.set_trial_system_attr(trial_id(trial), END, end)
        self._storage.set_trial_user_attr(trial_id(trial), REASON, reason[:2000])


def enqueue(study: Study, wanted: Sequence[Mapping[str, Any]]) -> None:
    """Enqueue trials with these parameters before all others, each once in the study's life."""
    enqueued = study.user_attrs.get(ENQUEUED, [])
    for params in wanted:
        if params not in enqueued:
            study.enqueue_trial(dict(params))
            enqueued = [*enqueued, params]
            study.set_user_attr(ENQUEUED, enqueued)
