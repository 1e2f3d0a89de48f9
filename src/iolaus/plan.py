"""What is to be searched: the search space as overrides write it, and all that a worker has to be told."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, Transformer, ValueType
from hydra.errors import HydraException
from hydra.utils import instantiate
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl, create_params_from_overrides
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GridSampler
from optuna.trial import Trial

from iolaus.config import flatten
from iolaus.errors import InputError
from iolaus.journal import open_storage
from iolaus.search import Search

NEEDS = {"CmaEsSampler": ["cmaes"], "GPSampler": ["scipy", "torch"], "QMCSampler": ["scipy"]}
"""What samplers import only when they are first asked."""


@dataclass(frozen=True)
class Plan:
    """What is to be searched, and where its study is kept: all that a worker has to be told."""

    storage: str
    study_name: str
    folder: str
    n_trials: int
    max_failure_rate: float
    space: Mapping[str, BaseDistribution]
    fixed: Mapping[str, str]
    """Overrides by key that all trials share."""
    deletions: Sequence[str]
    custom_search_space: str | None
    sampler: Mapping[str, Any]
    """Its configuration."""
    seed: int | None
    """Of the sampler; None only as long as the study is not open, which keeps one."""

    def with_seed(self, seed: int) -> "Plan":
        """The same with a seed, which the sampler is given if it takes one."""
        sampler = {**self.sampler, "seed": seed} if "seed" in self.sampler else self.sampler
        return dataclasses.replace(self, seed=seed, sampler=sampler)

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial with these parameters."""
        return overrides(params, self.fixed, self.deletions)

    def open(self) -> Search:
        """Look at the study, which must exist."""
        assert self.seed is not None
        study = optuna.load_study(
            study_name=self.study_name, storage=open_storage(self.storage), sampler=self._sampler()
        )
        return Search(study, self.n_trials, self.max_failure_rate, self.seed, Path(self.folder), self.fixed)

    def check(self, whitelist: Any) -> None:
        """Find out early whether the sampler and the custom search space can be made.

        Args:
            whitelist: What the app allows Hydra to call; None if it does not say.

        Raises:
            InputError: if not.
        """
        key = "sampler"
        try:
            for package in NEEDS.get(str(self.sampler["_target_"]).rpartition(".")[2], ()):
                importlib.import_module(package)
            self._sampler()
            key = "custom_search_space"
            self.extension(whitelist)
        except Exception as error:  # whatever they may raise
            raise InputError(f"hydra.sweeper.{key} cannot be used: {one_line(error)}") from error

    def extension(self, whitelist: Any) -> Callable[[DictConfig, Trial], None] | None:
        """What ``custom_search_space`` names, if anything: a function that suggests further parameters."""
        target = self.custom_search_space
        if target is None:
            return None
        allowed = (target,) if whitelist is None else whitelist
        extension: Callable[[DictConfig, Trial], None] = instantiate(
            {"_target_": target, "_partial_": True}, _execution_whitelist_=allowed
        )
        return extension

    def _sampler(self) -> BaseSampler:
        whitelist = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
        sampler = instantiate(dict(self.sampler), _execution_whitelist_=whitelist)
        if getattr(sampler, "func", None) is GridSampler:
            sampler = sampler(grid(self.space))
        assert isinstance(sampler, BaseSampler)
        return sampler


def one_line(message: object) -> str:
    """An error or its message in one line, without what Hydra puts around that of its parser."""
    lines = [line.strip() for line in str(message).splitlines()]
    kept = [line for line in lines if line and not line.startswith(("Error ", "See https://"))]
    return " ".join(kept) or " ".join(lines) or type(message).__name__


def grid(space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """The values of each parameter that a grid goes through.

    Raises:
        ValueError: for a continuous parameter.
    """
    return {name: OptunaSweeperImpl._to_grid_sampler_choices(distribution) for name, distribution in space.items()}


def overrides(params: Mapping[str, Any], fixed: Mapping[str, str], deletions: Sequence[str]) -> list[str]:
    """Parameters and what all trials share, as Hydra takes them."""
    searched = {name: element(value) for name, value in params.items()}
    return [*(f"{name}={value}" for name, value in {**searched, **fixed}.items()), *deletions]


def element(value: Any) -> str:
    """What a parameter's value is called in an override.

    A choice that Hydra would read as something else than one value, such as ``"a,b"``, is quoted; others stay as
    they are, since the sweep has forgotten whether ``[1,2]`` was a list or had quotes.
    """
    return _element(value) if isinstance(value, str) else str(value)


@functools.cache
def _element(text: str) -> str:
    try:
        if not OverridesParser.create().parse_override(f"key={text}").is_sweep_override():
            return text
    except HydraException:
        pass
    return QuotedString(text, Quote.single).with_quotes()


def parse(
    override: str, config_loader: ConfigLoader | None = None
) -> tuple[dict[str, BaseDistribution], dict[str, str], list[str]]:
    """What an override searches, fixes and deletes, as the official sweeper reads it, except for two forms.

    Shuffled choices would be another space in each command; ``glob(...)`` is refused there.

    Args:
        override: Of a key in ``hydra.sweeper.params``, or of the command line.
        config_loader: Knows the options of a group, for ``glob(...)``.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        (parsed,) = OverridesParser.create(config_loader).parse_overrides([override])
        choices: Any = None
        if parsed.value_type == ValueType.GLOB_CHOICE_SWEEP:
            choices = list(parsed.sweep_iterator())
            if not choices:
                raise InputError(f"{override} matches no option of this group")
        elif parsed.is_discrete_sweep() and getattr(parsed.value(), "shuffle", False):
            choices = list(parsed.sweep_iterator(transformer=Transformer.encode))
            choices.sort(key=lambda choice: (isinstance(choice, str), choice))
        if choices is not None:
            return {parsed.get_key_element(): CategoricalDistribution(choices)}, {}, []
        space, fixed, deletions = create_params_from_overrides([override])
        for distribution in space.values():
            kinds = {isinstance(choice, bool) for choice in getattr(distribution, "choices", ()) if choice in (0, 1)}
            if len(kinds) > 1:
                raise ValueError("Optuna takes true for 1 and false for 0, so search for one kind of them")
        return space, fixed, deletions
    except InputError:
        raise
    except (ValueError, NotImplementedError, AssertionError, HydraException) as error:
        raise InputError(f"{override} is no search space: {one_line(error)}") from error


def first_value(distribution: BaseDistribution) -> Any:
    """A value that is sure to be in a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low


def settings_of(config: DictConfig) -> dict[str, Any]:
    """A task's settings by dotted key, unresolved."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return flatten({key: value for key, value in plain.items() if key != "hydra"})
