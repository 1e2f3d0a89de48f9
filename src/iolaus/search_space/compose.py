"""Overrides turned into configurations: the one place that asks Hydra's loader to compose."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from iolaus.search_space.keys import flatten
from iolaus.search_space.overrides import replace_overrides


class Composer:
    """Compose what one sweep runs.

    Args:
        loader: Hydra's.
        sweep_config: The configuration of the sweep, which all of its jobs share.
        base: Overrides that hold where those of a job do not name the same key.
    """

    def __init__(self, loader: ConfigLoader, sweep_config: DictConfig, base: Sequence[str] = ()) -> None:
        """Keep what a configuration is composed from."""
        self.loader, self.sweep_config, self.base = loader, sweep_config, base

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration of a job of the sweep with these overrides.

        Raises:
            ConfigCompositionException: for overrides that fit no configuration.
        """
        return self.loader.load_sweep_config(self.sweep_config, replace_overrides(self.base, overrides))

    def compose_job(self, overrides: Sequence[str], number: int) -> DictConfig:
        """Return the same with the job's number, after which Hydra names its folder."""
        config = self.compose(overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        return config

    def compose_single(self, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration of a run outside of any sweep."""
        return self.loader.load_configuration(self.sweep_config.hydra.job.config_name, list(overrides), RunMode.RUN)

    def options(self, group: str) -> list[str]:
        """Return the options of a config group; none for a key that is not a group."""
        return self.loader.get_group_options(group)

    def is_group(self, key: str) -> bool:
        """Tell whether a key is a config group."""
        return bool(self.options(key))

    @property
    def folder(self) -> Path:
        """The folder of the sweep."""
        return Path(self.sweep_config.hydra.sweep.dir)

    def set_folder(self, folder: Path) -> None:
        """Move the sweep to another folder."""
        hydra = self.sweep_config.hydra
        with read_write(hydra), open_dict(hydra):
            hydra.sweep.dir = str(folder)
            hydra.overrides.hydra.append(f"hydra.sweep.dir={QuotedString(str(folder), Quote.single).with_quotes()}")

    def in_folder(self, folder: Path) -> "Composer":
        """Return a composer for another folder; this one stays as it is."""
        if folder == self.folder:
            return self
        other = Composer(self.loader, copy.deepcopy(self.sweep_config), self.base)
        other.set_folder(folder)
        return other

    def on_top_of(self, base: Sequence[str]) -> "Composer":
        """Return a composer of jobs that have these overrides unless they name the same keys."""
        return Composer(self.loader, self.sweep_config, base)


def settings_of(config: DictConfig) -> dict[str, Any]:
    """Return a task's settings by dotted key, unresolved, without Hydra's own."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return flatten({key: value for key, value in plain.items() if key != "hydra"})
