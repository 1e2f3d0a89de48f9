"""A search, and the life of its trials: claimed by one worker, told its end once, tried again if it was lost.

Nothing is decided but by what stands in the study's storage, so that any process may be killed at any moment, and any
number of them may work on one study. These rules make the total exact:

- A trial *counts* if it is COMPLETE, PRUNED or FAIL, except a FAIL that says nothing about its parameters: its worker
  was ``lost`` (for the first two times), it was ``interrupted`` by the user, or it was ``surplus``.
- What was lost or interrupted is tried again by a new trial that names it; of several, the smallest number is the one.
  So each *setting*, a trial of its own with those that try it again, ends in exactly one trial that counts.
- A new setting is surplus if as many as were asked for have smaller numbers, and so is a trial again of what a smaller
  number tries again. Who makes a trial looks at those with smaller numbers afterwards: numbers are given in order, so
  nothing can come between any more, and what was right once remains so. There can never be too many. A lock on one
  host makes surplus trials rare; it is not what makes the total exact.
- A trial carries the lease of its process from its first moment, or from the next if it was enqueued. Once that
  cannot be alive, whoever notices makes it FAIL, looking first whether it was surplus, if its process may not have
  come to that.
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
from iolaus.study.trials import is_alive, is_begun, is_ours, losses
from iolaus.system.lease import LEASE_S, lease

log = logging.getLogger(__name__)

OF_THE_RUN = (PREFIX, *RUN_ATTRS)
"""What system attributes begin with that say how a trial went, and not how its parameters were chosen."""

TOTAL, FAILURES, TARGET, PATIENCE, TIMEOUT, STOPPED = "total", "failures", "target", "patience", "timeout", "stopped"
"""What ends a search."""
ENDS = {
    TOTAL: "its total",
    FAILURES: "too many failures",
    TARGET: "hydra.sweeper.target={target}",
    PATIENCE: "hydra.sweeper.patience={patience}: so many trials without a better one",
    TIMEOUT: "hydra.sweeper.timeout_s={timeout_s}",
    STOPPED: "a request to stop",
}
"""The same in words, with what it is to be filled with."""

POLL_S = 0.5
"""Seconds between two looks of a worker that has nothing to do at those that have."""


@dataclass(frozen=True)
class Goals:
    """When a search is over; trials that run then come to their end.

    Args:
        n_trials: The study's total.
        limit: How many trials there can be: as many as a grid has points; None where there is no limit.
        max_failure_rate: In [0, 1]; above it nothing is claimed any more.
        target: A value that is to be passed.
        patience: How many trials may follow on the best one.
        deadline: Seconds since the epoch.
        stops: How often somebody had asked for the study's end before.
    """

    n_trials: int
    max_failure_rate: float = 0.0
    target: float | None = None
    patience: int | None = None
    deadline: float | None = None
    stops: int = 0
    limit: int | None = None


class TrialQueue:
    """A study as its workers see it.

    Args:
        study: With the sampler and the pruner that are to be used.
        goals: When it is over.
        seed: Of the sampler. Each draw has a stream of its own, so that no two workers propose the same point.
        folder: Where the lock lies that the workers of a host share.
        attrs: What each new trial is to carry as its user attributes.
    """

    def __init__(
        self,
        study: Study,
        goals: Goals,
        seed: int,
        folder: Path,
        attrs: Mapping[str, str] | None = None,
    ) -> None:
        """Look at a study; nothing is changed."""
        self.study, self.goals, self.seed = study, goals, seed
        self.n_trials = goals.n_trials
        """The total, which `tally` raises as soon as somebody has asked for more."""
        self.stops = goals.stops
        """How often somebody has asked for the study's end, which `tally` looks up as well."""
        self.attrs = {name: value for name, value in (attrs or {}).items() if name not in (FOLDER, REASON)}
        self._lock = FileLock(folder / "claim.lock", poll_interval=0.002)
        self._settled = Tally.of(study)

    @property
    def _storage(self) -> BaseStorage:
        return storage_of(self.study)

    def tally(self, before: int | None = None) -> Tally:
        """Count all trials, or those with smaller numbers than `before`."""
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
            taken_up=settled.taken_up.copy(),
            reasons=settled.reasons.copy(),
            ends=settled.ends.copy(),
        )
        for trial in trials[tally.size :]:
            tally.add(trial)
        return tally

    def ended_by(self, tally: Tally) -> str | None:
        """What has ended the search, so that there is nothing left to claim, now or later; None while it goes on."""
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

        Waits while others are at work on the last ones: what they lose is to be taken up.
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
        """Take the first trial that somebody has enqueued, and give its id and draw; None if another was faster.

        It is not surplus: all settings before it count or run, and these are too few.
        """
        storage, waiting = self._storage, trial_id(trial)
        with contextlib.suppress(UpdateFinishedTrialError):
            if storage.set_trial_state_values(waiting, TrialState.RUNNING):
                # Not before: it could take the place of the lease of somebody who is faster.
                storage.set_trial_system_attr(waiting, LEASE, lease())
                for name, value in self.attrs.items():
                    storage.set_trial_user_attr(waiting, name, value)
                return waiting, self.tally(before=trial.number).draws
        return None

    def _create(self, lost: tuple[FrozenTrial, int] | None = None) -> tuple[int, int] | None:
        """Make a trial, of lost parameters or of new ones, and give its id and draw; None if others were faster."""
        attrs: dict[str, Any] = {LEASE: lease()}
        if lost is not None:
            trial, draw = lost
            # What samplers have noted, such as the point of a grid, belongs to the parameters.
            attrs |= {key: value for key, value in trial.system_attrs.items() if not key.startswith(OF_THE_RUN)}
            attrs |= {RETRY_OF: trial.number, RNG_STREAM: draw, LOSSES: losses(trial)}
            # Some parameters without the others would leave these other random numbers than were theirs.
            if is_begun(trial):
                attrs[FIXED_PARAMS] = {**enqueued_params(trial.system_attrs), **trial.params}
        template = create_trial(state=TrialState.RUNNING, user_attrs=self.attrs, system_attrs=attrs)
        made = self._storage.get_trial(self._storage.create_new_trial(study_id(self.study), template))
        older = self.tally(before=made.number)
        if not self._is_surplus(made, older):
            return trial_id(made), attrs.get(RNG_STREAM, older.draws)
        self._end(made, SURPLUS, "others had been faster")
        return None

    def _is_surplus(self, trial: FrozenTrial, older: Tally) -> bool:
        retry_of = trial.system_attrs.get(RETRY_OF)
        return older.settings >= self.n_trials if retry_of is None else retry_of in older.taken_up

    def _begin(self, claimed: int, draw: int) -> Trial:
        reseed(self.study.sampler, self.seed, draw)
        forget_cached_trials(self.study)
        return Trial(self.study, claimed)

    @contextlib.contextmanager
    def lease_renewed(self, trial: Trial) -> Iterator[None]:
        """Renew a trial's lease from time to time, for those who cannot see this process."""
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
        """Finish a trial with its values; False if it was given up as lost meanwhile."""
        return self._finish(trial, TrialState.COMPLETE, values)

    def prune(self, trial: Trial) -> bool:
        """Finish a trial that its task has given up for its values; False if it was given up as lost meanwhile."""
        return self._finish(trial, TrialState.PRUNED, None)

    def fail(self, trial: Trial, end: str, reason: str) -> bool:
        """Finish a trial that has no value; False if it was given up as lost meanwhile.

        Args:
            trial: It has been claimed.
            end: FAILED, or INTERRUPTED, which does not count.
            reason: In a line.
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
        except ValueError:  # Optuna's other word for it, if it was given up since the look above
            if self._storage.get_trial(trial_id(trial)).state == TrialState.RUNNING:
                raise
            return False
        except RuntimeError as error:  # GridSampler, which has no other way to say that the grid is complete
            if "Study.stop" not in str(error):
                raise
        return True

    def fail_lost_trials(self, end: str = LOST, own: bool = False) -> list[int]:
        """Make each trial whose process is gone FAIL, and give their numbers.

        Args:
            end: INTERRUPTED where the user is the cause.
            own: Also those of this very process, whose worker has ended.
        """
        reason = "its worker was lost" if end == LOST else "interrupted"
        with self._lock:
            dead = [trial for trial in self.tally().running if not is_alive(trial) or (own and is_ours(trial))]
            for trial in dead:
                surplus = not is_begun(trial) and self._is_surplus(trial, self.tally(before=trial.number))
                self._end(trial, SURPLUS if surplus else end, reason)
        return [trial.number for trial in dead]

    def _end(self, trial: FrozenTrial, end: str, reason: str) -> None:
        """Make a trial FAIL, unless it has ended, that no sampler needs to hear of."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._note(trial, end, reason)
            self._storage.set_trial_state_values(trial_id(trial), TrialState.FAIL)

    def _note(self, trial: Trial | FrozenTrial, end: str, reason: str) -> None:
        self._storage.set_trial_system_attr(trial_id(trial), END, end)
        self._storage.set_trial_user_attr(trial_id(trial), REASON, reason[:2000])


def enqueue(study: Study, wanted: Sequence[Mapping[str, Any]]) -> None:
    """Put trials with these parameters before all others, each once in the study's life."""
    done = study.user_attrs.get(ENQUEUED, [])
    for params in wanted:
        if params not in done:
            study.enqueue_trial(dict(params))
            done = [*done, params]
            study.set_user_attr(ENQUEUED, done)
