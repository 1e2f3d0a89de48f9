"""A study as it stood at one moment: all that its page, its pictures and its export are made of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from iolaus.reporting.importance import Importances, estimate, study_in_memory
from iolaus.study import attributes
from iolaus.study.tally import Tally
from iolaus.study.trials import keeps_constraints, objectives, outcome_of, why_failed

ENDS = ("complete", "pruned", attributes.FAILED, attributes.LOST, attributes.INTERRUPTED, "running", "waiting")
"""The ends of trials, and the two states before, in the order in which they are told."""


@dataclass(frozen=True)
class Snapshot:
    """A study, read once: what is made of one snapshot agrees, whatever trials end meanwhile.

    Args:
        name: The study's name.
        objectives: The names of its objectives.
        directions: The direction of each.
        trials: All trials but the surplus ones, in the order of their numbers.
        attrs: The study's user attributes, named in `iolaus.study.attributes`.
        taken: The moment at which it was read.
    """

    name: str
    objectives: tuple[str, ...]
    directions: tuple[StudyDirection, ...]
    trials: tuple[FrozenTrial, ...]
    attrs: Mapping[str, Any]
    taken: datetime

    @classmethod
    def of(cls, study: Study) -> "Snapshot":
        """Read a study, which may be running; from a storage object that no other thread uses."""
        # Attributes first: what they say of trials is of such as are among the trials that are read after them.
        attrs = MappingProxyType(study.user_attrs)
        trials = study.get_trials(deepcopy=False)
        shown = tuple(trial for trial in trials if outcome_of(trial) != attributes.SURPLUS)
        names, directions = tuple(objectives(study)), tuple(study.directions)
        return cls(study.study_name, names, directions, shown, attrs, datetime.now())

    def sign(self, objective: int = 0) -> int:
        """Return 1 if an objective is minimized, -1 if it is maximized."""
        return -1 if self.directions[objective] == StudyDirection.MAXIMIZE else 1

    @cached_property
    def complete(self) -> Sequence[FrozenTrial]:
        """The complete trials, in the order of their numbers."""
        return tuple(trial for trial in self.trials if trial.state == TrialState.COMPLETE)

    @cached_property
    def ranked(self) -> Sequence[FrozenTrial]:
        """The complete trials that keep all constraints, the best value of the first objective first."""
        allowed = [trial for trial in self.complete if keeps_constraints(trial)]
        return tuple(sorted(allowed, key=lambda trial: self.sign() * trial.values[0]))

    @cached_property
    def best(self) -> Sequence[FrozenTrial]:
        """The best trial or, with several objectives, those that no other trial beats in all of them."""
        if len(self.directions) == 1:
            return () if self.tally.best is None else (self.tally.best,)
        front = study_in_memory(self.complete, self.directions).best_trials
        return tuple(self.complete[trial.number] for trial in front)

    @cached_property
    def tally(self) -> Tally:
        """The counts of the trials, and the best trial by the first objective."""
        tally = Tally(self.sign())
        for trial in self.trials:
            tally.add(trial)
        return tally

    @cached_property
    def ends(self) -> Mapping[str, int]:
        """The number of trials by what became of them."""
        return MappingProxyType(Counter(map(outcome_of, self.trials)))

    @property
    def ends_in_words(self) -> str:
        """The same as in ``8 complete, 3 pruned``; empty without trials."""
        return ", ".join(f"{self.ends[end]} {end}" for end in ENDS if self.ends.get(end))

    @cached_property
    def reasons(self) -> Sequence[str]:
        """The reasons of failures, the most frequent one first."""
        return tuple(why_failed(self.tally.reasons))

    @cached_property
    def importances(self) -> Importances | None:
        """The importances of the parameters; None if nothing was searched."""
        return estimate(self.complete, self.directions)

    @property
    def is_list(self) -> bool:
        """True of a list of settings, whose trials were not drawn: none is the best, and parameters are places."""
        return attributes.SETTINGS in self.attrs

    @property
    def finals(self) -> Mapping[str, Any] | None:
        """The result of the finals."""
        return self.attrs.get(attributes.FINALS_RESULT)

    @property
    def comparison(self) -> Mapping[str, Any] | None:
        """The result of a comparison of settings."""
        return self.attrs.get(attributes.COMPARISON_RESULT)

    @property
    def notes(self) -> Sequence[str]:
        """Lines that the app wants to stand in the report."""
        return self.attrs.get(attributes.NOTES, ())

    @property
    def target(self) -> float | None:
        """The value of the first objective that was to be reached."""
        return self._known_to_the_sweep.get("target")

    @property
    def rerun_command(self) -> str | None:
        """The command that trains the best trial again; None unless the sweep knew it to be the best."""
        known, best = self._known_to_the_sweep, self.tally.best
        return known["command"] if best is not None and best.number == known.get("trial") else None

    @property
    def last_command(self) -> Mapping[str, Any]:
        """The last ``command`` that worked on the study and the ``cores`` that it had; empty if that is not known."""
        return self.attrs.get(attributes.COMMAND, {})

    @property
    def _known_to_the_sweep(self) -> Mapping[str, Any]:
        return self.attrs.get(attributes.REPORT, {})
