"""Hydra's launcher ``local``: each job in a process of its own on this machine, watched and replaced alone.

The launcher itself stands in ``iolaus.sweep.local_launcher``, since this module is imported whenever any Hydra program
starts; but Hydra takes launchers from ``hydra_plugins`` only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher


class LocalLauncher(Launcher):
    """Starts a new process for each job: see `iolaus.sweep.local_launcher.LocalLauncher`."""

    def setup(self, **given: Any) -> None:
        """Take what Hydra gives a launcher."""
        from iolaus.sweep import local_launcher

        self.launcher = local_launcher.LocalLauncher()
        self.launcher.setup(**given)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs, and wait for them."""
        return self.launcher.launch(job_overrides, initial_job_idx)


@dataclass
class LocalLauncherConf:
    """Settings of the launcher."""

    _target_: str = "hydra_plugins.iolaus_local.LocalLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="iolaus")
