"""All that Iolaus uses of Optuna, and of Hydra's Optuna plugin, beyond what they document.

A new version of either may change it without notice, so each use stands here with the reason why the public interface
does not do. Nothing of Optuna is imported before it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

FIXED_PARAMS = "fixed_params"
"""The system attribute in which Optuna keeps the parameters that an enqueued trial is to have.

`Study.enqueue_trial` writes it into a new trial that waits. A retry is running from its first moment, so that nobody
else can claim it, and has to be made with the attribute.
"""

RUN_ATTRS = ("constraints", "completed_rung_")
"""Beginnings of the names of Optuna's system attributes that say how a trial went: its constraints, and the rungs of
successive halving that it has reached.

All others, such as the point of a grid, belong to the parameters, which a retry takes over. No public function tells
one kind from the other.
"""


def storage_of(study: "Study") -> "BaseStorage":
    """Return the storage of a study.

    `Study` has no public attribute for it, and methods neither to claim a trial atomically nor to write attributes to
    one that this process does not run. To open a second storage instead would keep all trials in memory twice.
    """
    return study._storage


def study_id(study: "Study") -> int:
    """Return the number by which the methods of a storage know a study; publicly it has only a name."""
    return study._study_id


def trial_id(trial: "Trial | FrozenTrial") -> int:
    """Return the number by which the methods of a storage know a trial; `number` counts within its study."""
    return trial._trial_id


def forget_cached_trials(study: "Study") -> None:
    """Have samplers read the trials of a study anew, which they keep for as long as they propose one trial.

    `Study.ask` does it, but would also make a trial of its own.
    """
    study._thread_local.cached_all_trials = None


def suggest(trial: "Trial", name: str, distribution: "BaseDistribution") -> Any:
    """Have the sampler choose a parameter's value.

    The public `Trial.suggest_int`, `suggest_float` and `suggest_categorical` take a distribution apart; this is what
    they call with it.
    """
    return trial._suggest(name, distribution)


def contains(distribution: "BaseDistribution", value: float) -> bool:
    """Return whether a number lies in the range of a distribution and on its steps.

    No public method tells: `to_internal_repr` checks the type of a value only.
    """
    return bool(distribution._contains(value))


def enqueued_params(attrs: "Mapping[str, Any]") -> dict[str, Any]:
    """Return the parameters that a trial was enqueued with, from its system attributes.

    `FrozenTrial.params` has them only once they have been suggested.
    """
    return dict(attrs.get(FIXED_PARAMS, {}))


def reseed(sampler: "BaseSampler", seed: int, rng_stream: int) -> None:
    """Have each generator in a sampler, and in the samplers that it contains, begin a stream of random numbers.

    The public `BaseSampler.reseed_rng` takes no seed but draws one, and a sampler that is made anew for each trial
    loses what it has cached.

    Args:
        sampler: Any of Optuna's.
        seed: Of the study.
        rng_stream: The number of the stream: the same numbers follow wherever it is begun.
    """
    from optuna.samplers import BaseSampler
    from optuna.samplers._lazy_random_state import LazyRandomState

    generators = 0

    def visit(owner: object) -> None:
        nonlocal generators
        for value in vars(owner).values():
            if isinstance(value, LazyRandomState):
                value.rng.seed([seed, rng_stream, generators])
                generators += 1
            elif isinstance(value, BaseSampler):
                visit(value)

    visit(sampler)


def journal_op_codes() -> frozenset[int]:
    """Return the codes of the operations that Optuna writes to a journal.

    The codes have no public name, and at a line with another one, which a newer Optuna may have written,
    `JournalStorage` fails with an assertion that says nothing.
    """
    from optuna.storages.journal._storage import JournalOperation

    return frozenset(JournalOperation)


def sets_trial_state(log: "Mapping[str, Any]") -> bool:
    """Return whether a line of a journal changes the state of a trial; see `journal_op_codes`."""
    from optuna.storages.journal._storage import JournalOperation

    return bool(log["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES)


def parse_override(override: str) -> "tuple[dict[str, BaseDistribution], dict[str, str]]":
    """Read an override as Hydra's official Optuna sweeper does.

    Its reading of ``choice``, ``range``, ``interval`` and tags is what a configuration written for it relies on, and
    only its private module has it.

    Returns:
        What is searched and what is set, by key; both are empty for a deletion.

    Raises:
        ValueError, NotImplementedError, AssertionError, HydraException: if it cannot be read.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

    searched, fixed, _ = create_params_from_overrides([override])
    return searched, fixed


def grid_values(distribution: "BaseDistribution") -> Any:
    """Return the values of a discrete distribution that the official sweeper has a grid go through.

    See `parse_override` for why it is the official one's.

    Raises:
        ValueError: for a continuous distribution.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

    return OptunaSweeperImpl._to_grid_sampler_choices(distribution)
