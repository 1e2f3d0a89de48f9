"""The finals of a search: its best settings are run again with new seeds, and one of them is the winner.

The value of the best of many trials on one split is too optimistic. So the best `k` settings are run again with `r`
seeds that no trial had, on the same split. Of those whose mean does not differ significantly from the best one by a
paired t-test, and lies within its interval, the winner is the one with the fewest parameters; of equally small ones the
one with the best mean, unless another trains significantly faster by the same test on the seconds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from iolaus import metric_table
from iolaus.compare.multi_seed import SEED, MultiSeedPlan, add_difference, require_seed, row_of, without_seed
from iolaus.compare.statistics import format_difference, format_mean, format_value, paired
from iolaus.errors import InputError, require
from iolaus.search_space.keys import key_of
from iolaus.study.attributes import ENDED
from iolaus.study.queue import TrialQueue
from iolaus.study.trials import keeps_constraints, objectives, sign_of

RULE = (
    "of those whose mean does not differ significantly from the best by a paired t-test at 95 %, and lies within its "
    "interval, the smallest; of equally small ones the best mean, unless another trains significantly faster"
)
LIMITS = ("timeout_s", "target", "patience")
"""Keys besides ``n_trials`` that a user may change so that a search continues."""


@dataclass(frozen=True)
class Rule:
    """The key ``hydra.sweeper.finals``.

    Args:
        k: The number of settings.
        r: The number of new seeds that each is run with.
        n_test: The number of seeds that the winner is tested with: these, then further new ones.
    """

    k: int
    r: int
    n_test: int


def read(given: Any, directions: Sequence[str], n_trials: int, config: DictConfig) -> Rule | None:
    """Read ``hydra.sweeper.finals``; return None if there are to be no finals.

    Raises:
        InputError: for a mistake that would otherwise be noticed only after the search.
    """
    form, keys = "such as {k: 3, r: 5, n_test: null}", {"k", "r", "n_test"}
    require(isinstance(given, Mapping) and set(given) == keys, "hydra.sweeper.finals", form, given)
    k, r, n_test = given["k"], given["r"], given["n_test"]
    if k == 0:
        return None
    require(type(k) is int and k >= 1, "hydra.sweeper.finals.k", "at least 1, or 0 for none", k)
    require(type(r) is int and r >= 3, "hydra.sweeper.finals.r", "at least 3, or a test can tell nothing", r)
    good = n_test is None or (type(n_test) is int and n_test >= 1)
    require(good, "hydra.sweeper.finals.n_test", "at least 1, or null for as many as r", n_test)
    require(k <= n_trials, "hydra.sweeper.finals.k", f"at most hydra.sweeper.n_trials={n_trials}", k)
    if len(directions) > 1:
        raise InputError(f"hydra.sweeper.finals needs one objective, but there are {len(directions)}")
    require_seed(config)
    return Rule(k, r, r if n_test is None else n_test)


def describe_end(queue: TrialQueue, asked: Mapping[str, Any], by: str) -> dict[str, Any]:
    """Return what is stored of the end of a search, which `has_ended` compares with later commands.

    Args:
        queue: Of its study.
        asked: The keys of ``hydra.sweeper`` that a user may raise so that it continues.
        by: The cause of its end.
    """
    tally = queue.tally()
    return {"by": by, "counted": tally.counted, "n_trials": queue.n_trials, **{key: asked[key] for key in LIMITS}}


def has_ended(queue: TrialQueue, asked: Mapping[str, Any]) -> bool:
    """Return whether a search has ended, if only by its time limit, and no command has asked for more since."""
    tally, end = queue.tally(), queue.study.user_attrs.get(ENDED)
    return end is not None and not tally.running and not tally.waiting and end == describe_end(queue, asked, end["by"])


def select(study: Study, k: int, overrides_of: Callable[[FrozenTrial], Sequence[str]]) -> dict[int, list[str]]:
    """Return the overrides of the best settings without a seed, by the number of the best trial of each, best first.

    Args:
        study: With one objective.
        k: Their number; trials that differ only in their seed are one setting.
        overrides_of: Returns the overrides that a trial was composed of.

    Raises:
        InputError: if fewer settings have a value.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    allowed = [trial for trial in complete if keeps_constraints(trial)]
    chosen: dict[int, list[str]] = {}
    for trial in sorted(allowed, key=lambda trial: sign_of(study, 0) * trial.values[0]):
        setting = without_seed(overrides_of(trial))
        if len(chosen) < k and sorted(setting) not in map(sorted, chosen.values()):
            chosen[trial.number] = setting
    if len(chosen) < k:
        raise InputError(
            f"hydra.sweeper.finals.k={k}, but only {len(chosen)} settings of {study.study_name} have a value: ask "
            f"for more trials with hydra.sweeper.n_trials, or set hydra.sweeper.finals.k={max(len(chosen), 1)}"
        )
    return chosen


def new_seeds(study: Study, count: int, seed: int, repeats: int) -> list[int]:
    """Return seeds that no trial has had: those after the largest.

    Args:
        study: Of the search.
        count: Their number.
        seed: The seed of a trial where seeds are not searched.
        repeats: The number of seeds that a trial has had, from its own on.
    """
    used = [int(trial.params[name]) for trial in study.get_trials(deepcopy=False) for name in trial.params
           if key_of(name) == SEED]  # fmt: skip
    first = max([seed, *used]) + repeats
    return list(range(first, first + count))


def compare_finalists(
    study: Study, chosen: Mapping[int, Sequence[str]], seeds: Sequence[int], plan: MultiSeedPlan, runs: Study
) -> dict[str, Any]:
    """Return the results of the finalists, and the winner among them.

    Args:
        study: Of the search.
        chosen: The settings by the number of their best trial.
        seeds: The seeds that each was run with.
        plan: The plan of these runs.
        runs: Their study.

    Raises:
        InputError: if none of them has a value for each of its seeds.
    """
    sign, trials = sign_of(study, 0), study.get_trials(deepcopy=False)
    rows = [
        {"trial": number, "best": trials[number].values[0], **row_of(plan, runs, setting, seeds)}
        for number, setting in chosen.items()
    ]
    complete = [row for row in rows if not row["failed"]]
    if not complete:
        raise InputError(
            f"no finalist has a value for each of its seeds: their tracebacks are in {plan.folder}; to run them again, "
            f"use python src/studies.py delete {runs.study_name}, and repeat the command"
        )
    best = min(complete, key=lambda row: sign * row["mean"])
    for row in rows:
        if row is not best:
            add_difference(row, best)
    margin = best["interval"] or 0.0
    close = [row for row in complete
             if row is best or (not row["significant"] and abs(row["mean"] - best["mean"]) <= margin)]  # fmt: skip
    winner = _cheapest(close, key=lambda row: sign * row["mean"])
    optimism = -sign * (rows[0]["best"] - rows[0]["mean"]) if rows[0]["values"] else None
    return {
        "objective": objectives(study)[0], "seeds": list(seeds), "finalists": rows, "best": best["trial"],
        "winner": winner["trial"], "rule": RULE, "optimism": optimism,
    }  # fmt: skip


def _cheapest(close: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], float]) -> dict[str, Any]:
    """Return the smallest setting; of equally small ones the best mean, or one that trains significantly faster."""
    sizes = [row["params"] for row in close if row["params"] is not None]
    smallest = [row for row in close if row["params"] == min(sizes)] if len(sizes) == len(close) else close
    best = min(smallest, key=key)

    def seconds(row: Mapping[str, Any]) -> dict[int, float]:
        return dict(zip(row["seeds"], row["all_fit_s"], strict=False))

    extra = {row["trial"]: paired(seconds(row), seconds(best)) for row in smallest if row is not best}
    faster = [
        row for row in smallest if row is not best and extra[row["trial"]].significant and extra[row["trial"]].mean < 0
    ]
    return min(faster, key=lambda row: float(row["fit_s"])) if faster else best


def winner_result(plan: MultiSeedPlan, runs: Study, setting: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the results of the winner's last runs.

    Raises:
        InputError: if none of them has a value.
    """
    row = row_of(plan, runs, setting, seeds)
    if not row["values"]:
        raise InputError(
            f"none of the winner's last runs has a value: their tracebacks are in {plan.folder}; to run them again, "
            f"use python src/studies.py delete {runs.study_name}, and repeat the command"
        )
    return {"test": row}


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the results of the finals in lines."""
    objective, seeds = result["objective"], result["seeds"]
    yield (
        f"finals: {len(result['finalists'])} settings with {len(seeds)} new seeds each, {objective} as mean ± half its "
        "95 % interval"
    )
    for row in result["finalists"]:
        yield f"  trial {row['trial']}: {', '.join(_describe(row, result))}"
    yield f"winner: trial {result['winner']} ({result['rule']})"
    if result["optimism"] is not None:
        first = result["finalists"][0]
        by = f"flattered its best trial by {format_value(result['optimism'], objective)}"
        yield (
            f"the search {by if result['optimism'] > 0 else 'did not flatter its best trial'}: "
            f"{format_value(first['best'], objective)} there, {format_mean(first, objective)} with new seeds"
        )


def last_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the results of the winner's last runs in lines."""
    test = result["test"]
    failed = f", {test['failed']} failed" if test["failed"] else ""
    yield f"test accuracy of the winner, trained on train and val: {format_mean(test, 'test/accuracy')}{failed}"
    if result.get("champion"):
        yield str(result["champion"])


def _describe(row: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the line of a finalist says."""
    objective = result["objective"]
    yield format_mean(row, objective) if row["values"] else "no value"
    yield f"{format_value(row['best'], objective)} in the search"
    if row["failed"]:
        yield f"{row['failed']} failed"
    if row["params"] is not None:
        yield f"{metric_table.of('params').shown(row['params'])} parameters"
    if row["fit_s"] is not None:
        yield metric_table.of("fit_s").shown(row["fit_s"])
    if row["trial"] == result["best"]:
        yield "the best mean"
    elif row.get("p") is not None:
        significant = "significant" if row["significant"] else "not significant"
        yield f"{format_difference(row, objective)} against the best mean (p = {row['p']:.2g}: {significant})"
