"""A dry run: the space, a trial of each branch, and an estimate of the time; nothing is run."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import optuna
from hydra._internal.execution_policy import execution_whitelist
from hydra.core.hydra_config import HydraConfig
from optuna.exceptions import OptunaError
from optuna.study import Study
from optuna.trial import TrialState

from iolaus.compare import finals
from iolaus.compare.multi_seed import count_left
from iolaus.errors import InputError, one_line
from iolaus.study.identity import require_format
from iolaus.study.plan import Plan
from iolaus.study.storage import open_storage
from iolaus.study.tally import Tally
from iolaus.sweep.session import Session
from iolaus.system import machine

DRAWS = 24
"""The number of random trials of an estimate: branches alone would weigh rare ones like common ones."""


def dry_run(session: Session, plan: Plan, branches: Sequence[Sequence[str]], rule: finals.Rule | None) -> Iterator[str]:
    """Yield in lines what a search would do.

    Args:
        session: Of the command.
        plan: Of the search.
        branches: The overrides of a trial of each branch, all of which have been composed.
        rule: Of the finals, if there are any.
    """
    workers = session.pool.workers(plan.goals.n_trials, session.composer)
    yield from _search(session, plan, branches, workers)
    if rule is not None:
        each = f"then the best {rule.k} settings with {rule.r} new seeds each"
        yield f"{each}, and the winner with {rule.n_test} seeds on test"


def _search(session: Session, plan: Plan, branches: Sequence[Sequence[str]], workers: int) -> Iterator[str]:
    yield f"study {plan.study_name}: {plan.goals.n_trials} trials, {workers} workers; {plan.folder}"
    yield from (f"  {line}" for line in plan.space.tree())
    yield f"{len(branches)} branches, a trial of each composed:"
    seconds_of = _timer(session, max(1, machine.cores() // workers), plan.repeats)
    for branch in branches:
        yield f"  {_timed(seconds_of, branch)[1]}{' '.join(branch)}"
    finished, mean = _so_far(plan)
    why = "the mean of this study so far"
    if seconds_of is not None:
        mean, why = _mean_of_draws(session, plan, seconds_of)
    if mean is None:
        yield "no trial has run yet from which the time could be estimated"
        return
    left = max(0, plan.goals.n_trials - finished)
    workers = max(1, min(workers, left))
    whole_s = mean * left / workers
    yield f"about {_clock(whole_s)} for {left} trials of {mean:.1f} s, {why}"
    yield "pruning makes it less, a sampler that comes to prefer large models more"
    timeout_s = session.settings["timeout_s"]
    if timeout_s is not None and timeout_s < whole_s:
        begun = max(1, round(timeout_s * workers / mean))
        yield f"hydra.sweeper.timeout_s ends it after about {_clock(timeout_s + mean / 2)}, with about {begun} trials"


def dry_comparison(
    session: Session, plan: Plan, settings: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> Iterator[str]:
    """Yield in lines what a comparison would do.

    Args:
        session: Of the command.
        plan: Of the comparison.
        settings: The overrides of each by name, all of which have been composed.
        seeds: With which each is to run.
    """
    workers = session.pool.workers(len(settings) * len(seeds), session.composer)
    count = f"{len(settings)} settings with {len(seeds)} seeds each"
    yield f"study {plan.study_name}: {count}, {workers} workers; {plan.folder}"
    seconds_of = _timer(session, max(1, machine.cores() // workers), 1)
    study, runs, whole_s, unknown = _existing(plan), 0, 0.0, 0
    for name, overrides in settings.items():
        missing = len(seeds) if study is None else count_left(study, [overrides], seeds)
        seconds, took = _timed(seconds_of, overrides)
        runs, unknown = runs + missing, unknown + (seconds is None)
        whole_s += missing * (seconds or 0.0)
        yield f"  {took}{name}: {' '.join(overrides)}"
    if seconds_of is None:
        yield f"{runs} runs are left; how long one takes only an app can tell that knows estimate_s"
        return
    without = f", without those of {unknown} settings that cannot run" if unknown else ""
    yield f"about {_clock(whole_s / max(1, min(workers, runs)))} for the {runs} runs that are left{without}"


def _timed(seconds_of: Callable[[Sequence[str]], float] | None, overrides: Sequence[str]) -> tuple[float | None, str]:
    """Return the seconds that a trial with these overrides would take, if that can be told, and the same in words."""
    if seconds_of is None:
        return None, ""
    try:
        seconds = seconds_of(overrides)
    except Exception as error:  # whatever a model may raise: the others are worth knowing
        return None, f"cannot run ({one_line(error)}):  "
    return seconds, f"{seconds:6.1f} s  "


def _timer(session: Session, threads: int, repeats: int) -> Callable[[Sequence[str]], float] | None:
    """Return a function that times a trial with given overrides; None if no callback of the app's can."""
    found = [callback for callback in session.callbacks if hasattr(callback, "estimate_s")]

    def seconds_of(overrides: Sequence[str]) -> float:
        config = session.composer.compose(overrides)
        HydraConfig.instance().set_config(config)
        with execution_whitelist(session.whitelist, reset=True):
            return repeats * float(found[0].estimate_s(config.copy(), threads))

    return seconds_of if found else None


def _mean_of_draws(
    session: Session, plan: Plan, seconds_of: Callable[[Sequence[str]], float]
) -> tuple[float | None, str]:
    """Return the mean time of a few random trials, and how it was estimated."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seconds, failed = [], 0
    for _ in range(DRAWS):
        try:
            seconds.append(seconds_of(plan.suggest(study.ask(), session.composer.sweep_config, session.whitelist)))
        except Exception:  # such a trial will fail as early
            failed += 1
    why = f"the mean of {len(seconds)} random ones, a few steps of each timed"
    return statistics.fmean(seconds) if seconds else None, f"{why} ({failed} cannot run)" if failed else why


def _existing(plan: Plan) -> Study | None:
    """Return the study that a plan would go on with, if it is there."""
    path = plan.storage.removeprefix("sqlite:///")
    if "://" not in path and not Path(path).exists():  # to look would make it
        return None
    try:
        study = optuna.load_study(study_name=plan.study_name, storage=open_storage(plan.storage))
    except (KeyError, InputError, OptunaError):
        return None
    require_format(study)
    return study


def _so_far(plan: Plan) -> tuple[int, float | None]:
    """Return the number of trials that count already, and the mean seconds of a complete one, if there is one."""
    study = _existing(plan)
    if study is None:
        return 0, None
    trials = study.get_trials(deepcopy=False)
    durations = [trial.duration for trial in trials if trial.state == TrialState.COMPLETE and trial.duration]
    mean = statistics.fmean(duration.total_seconds() for duration in durations) if durations else None
    return Tally.of(study, trials).counted, mean


def _clock(seconds: float) -> str:
    return f"{timedelta(seconds=round(seconds))} (h:mm:ss)"
