"""The tally of a study: counts of its trials, from which it follows whether a search continues, and the best ones."""

import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from iolaus.study.attributes import END, FAILED, NO_REASON, REASON, RETRY_OF, RNG_STREAM, SURPLUS
from iolaus.study.trials import keeps_constraints, needs_retry

JUDGED_FROM = 5
"""The number of trials from which on the share of failures is judged; all of them if there are fewer."""


@dataclass
class Tally:
    """Counts of a study's trials up to some number."""

    sign: int
    """1 if the first objective is to be minimized, -1 if it is to be maximized."""
    size: int = 0
    """The number of trials that were added."""
    counted: int = 0
    """Those that count towards the total."""
    failed: int = 0
    """Those among the counted that are FAIL."""
    pruned: int = 0
    """Those among the counted that are PRUNED."""
    settings: int = 0
    """Those that are neither retries nor surplus."""
    rng_streams: int = 0
    """Those that are not retries, each of which has a stream of random numbers of its own."""
    running: list[FrozenTrial] = field(default_factory=list)
    waiting: list[FrozenTrial] = field(default_factory=list)
    lost: dict[int, tuple[FrozenTrial, int]] = field(default_factory=dict)
    """Lost and interrupted trials by number, each with its stream of random numbers."""
    retried: set[int] = field(default_factory=set)
    """The numbers of the lost trials that have a retry."""
    reasons: Counter[str] = field(default_factory=Counter)
    """The reasons of those that failed."""
    best: FrozenTrial | None = None
    """The best complete trial by the first objective that keeps all constraints."""
    best_since: datetime | None = None
    """The time at which the first of those that are as good as the best one ended."""
    ends: list[datetime] = field(default_factory=list)
    """The times at which those that count ended, in order."""

    @classmethod
    def of(cls, study: Study, trials: Sequence[FrozenTrial] = ()) -> "Tally":
        """Return a tally of a study with the given trials, by default none."""
        tally = cls(-1 if study.directions[0] == StudyDirection.MAXIMIZE else 1)
        for trial in trials:
            tally.add(trial)
        return tally

    def add(self, trial: FrozenTrial) -> None:
        """Add the next trial."""
        attrs = trial.system_attrs
        retry_of, rng_stream = attrs.get(RETRY_OF), attrs.get(RNG_STREAM, self.rng_streams)
        self.size += 1
        self.rng_streams += retry_of is None
        end = attrs.get(END, FAILED) if trial.state == TrialState.FAIL else None
        if end != SURPLUS:
            self.settings += retry_of is None
            self.retried |= set() if retry_of is None else {retry_of}
        if trial.state == TrialState.RUNNING:
            self.running.append(trial)
        elif trial.state == TrialState.WAITING:
            self.waiting.append(trial)
        elif needs_retry(trial):
            self.lost[trial.number] = trial, rng_stream
        elif end != SURPLUS:
            self.counted += 1
            if trial.datetime_complete is not None:
                bisect.insort(self.ends, trial.datetime_complete)
            self.pruned += trial.state == TrialState.PRUNED
            if end is not None:
                self.failed += 1
                self.reasons[trial.user_attrs.get(REASON, NO_REASON)] += 1
            elif self.is_best(trial):
                self.best, self.best_since = trial, trial.datetime_complete
            elif self.best is not None and trial.values == self.best.values and keeps_constraints(trial):
                known = [end for end in (self.best_since, trial.datetime_complete) if end is not None]
                self.best_since = min(known, default=None)

    def is_best(self, trial: FrozenTrial) -> bool:
        """Return whether a trial is complete, keeps all constraints, and beats the best."""
        if trial.state != TrialState.COMPLETE or not keeps_constraints(trial):
            return False
        return self.best is None or self.sign * trial.values[0] < self.sign * self.best.values[0]

    @property
    def since_best(self) -> int:
        """The number of trials that count and ended after the best one, or after another that is as good."""
        return 0 if self.best_since is None else len(self.ends) - bisect.bisect_right(self.ends, self.best_since)

    @property
    def pending(self) -> list[tuple[FrozenTrial, int]]:
        """The lost trials that have no retry yet, each with its stream of random numbers."""
        return [lost for number, lost in self.lost.items() if number not in self.retried]

    def passes(self, target: float) -> bool:
        """Return whether the best value is as good as this one, or better."""
        return self.best is not None and self.sign * self.best.values[0] <= self.sign * target

    def fails_too_often(self, max_failure_rate: float, n_trials: int) -> bool:
        """Return whether more than this share of the trials has failed, judged from `JUDGED_FROM` trials on."""
        return self.counted >= min(JUDGED_FROM, n_trials) and self.failed > max_failure_rate * self.counted


def best_of(study: Study, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the best complete trial by the first objective that keeps all constraints."""
    return Tally.of(study, trials).best


def best_trials(study: Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the best of a study's trials; with several objectives the Pareto front, which no other trial dominates."""
    if len(study.directions) > 1:
        return study.best_trials
    best = best_of(study, trials)
    return [] if best is None else [best]
