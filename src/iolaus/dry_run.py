"""What a sweep would do: its space, its branches, and how long it may take."""

import statistics
from collections.abc import Iterator
from datetime import timedelta

import optuna
from hydra._internal.execution_policy import execution_whitelist
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig
from optuna.exceptions import OptunaError
from optuna.trial import TrialState

from iolaus import machine
from iolaus.errors import InputError
from iolaus.journal import open_storage
from iolaus.plan import Plan
from iolaus.planner import Planner
from iolaus.space import one_line


def dry_run(
    planner: Planner, plan: Plan, hydra_context: HydraContext, master: DictConfig, workers: int
) -> Iterator[str]:
    """Say in lines what a plan searches; each of its branches has been composed.

    Args:
        planner: Has made the plan.
        plan: What is to be searched.
        hydra_context: Of the command.
        master: The configuration of the sweep.
        workers: How many there would be.
    """
    yield f"study {plan.study_name}: {plan.goals.n_trials} trials, {workers} workers; {plan.folder}"
    yield from (f"  {line}" for line in plan.space.tree())
    yield f"{len(planner.branches)} branches, a trial of each composed:"
    estimates = [
        callback.estimate_s for callback in hydra_context.callbacks.callbacks if hasattr(callback, "estimate_s")
    ]
    seconds = []
    for branch in planner.branches:
        took = ""
        if estimates:
            config = hydra_context.config_loader.load_sweep_config(master, branch)
            HydraConfig.instance().set_config(config)
            task = config.copy()
            try:
                with execution_whitelist(hydra_context.execution_whitelist, reset=True):
                    seconds.append(estimates[0](task, max(1, machine.cores() // workers)))
                took = f"{seconds[-1]:6.1f} s  "
            except Exception as error:  # whatever a model may raise: the other branches are worth knowing
                took = f"cannot run ({one_line(error)}):  "
        yield f"  {took}{' '.join(branch)}"
    yield _estimate(plan, workers, statistics.fmean(seconds) if seconds else _mean_so_far(plan), bool(seconds))


def _mean_so_far(plan: Plan) -> float | None:
    """Seconds that a trial of the study has taken so far, if there is one."""
    if "://" not in plan.storage and not plan.exists():
        return None
    try:
        study = optuna.load_study(study_name=plan.study_name, storage=open_storage(plan.storage))
    except (KeyError, InputError, OptunaError):
        return None
    durations = [t.duration for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.duration]
    return statistics.fmean(duration.total_seconds() for duration in durations) if durations else None


def _estimate(plan: Plan, workers: int, mean: float | None, timed: bool) -> str:
    if mean is None:
        return "no trial has run yet from which the time could be estimated"
    whole = timedelta(seconds=round(mean * plan.goals.n_trials / workers))
    why = "the mean of the branches, a few steps of each timed" if timed else "the mean of this study so far"
    return f"about {whole} (h:mm:ss) for {plan.goals.n_trials} trials of {mean:.1f} s, {why}; pruning makes it less"
