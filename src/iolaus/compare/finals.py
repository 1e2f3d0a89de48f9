"""What follows a search: its best settings again with new seeds, and the winner among them.

The best of many trials on one split flatters itself. So the best `k` settings are run again with `r` seeds that no
trial had, on the same split. Of those whose mean a paired t-test cannot tell from the best one, and whose mean lies
within its interval, the winner is the one with the fewest parameters; of equally many the one with the best mean,
unless another is told to train faster by the same test on the seconds.
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
    "of those that a paired t-test at 95 % cannot tell from the best mean, and that lie within its interval, the "
    "smallest; of equally small ones the best mean, unless another is told to train faster"
)
RAISED = ("timeout_s", "target", "patience")
"""Keys besides ``n_trials`` that a user may change to have a search go on."""


@dataclass(frozen=True)
class Rule:
    """The key ``hydra.sweeper.finals``.

    Args:
        k: How many settings.
        r: With how many seeds each.
        n_test: With how many the winner is tested: with these, then with further new ones.
    """

    k: int
    r: int
    n_test: int


def read(given: Any, directions: Sequence[str], n_trials: int, config: DictConfig) -> Rule | None:
    """What ``hydra.sweeper.finals`` says; None if there are to be none.

    Raises:
        InputError: for what could not be done after the search.
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


def ended(search: TrialQueue, asked: Mapping[str, Any], by: str) -> dict[str, Any]:
    """What is kept of a search that has come to its end, to be compared by `may_follow`.

    Args:
        search: Of its study.
        asked: The keys of ``hydra.sweeper`` that a user may raise to have it go on.
        by: What has ended it.
    """
    tally = search.tally()
    return {"by": by, "counted": tally.counted, "n_trials": search.n_trials, **{key: asked[key] for key in RAISED}}


def may_follow(search: TrialQueue, asked: Mapping[str, Any]) -> bool:
    """Whether the search has ended already, if only by its time, and nobody has asked for more since."""
    tally, known = search.tally(), search.study.user_attrs.get(ENDED)
    return known is not None and not tally.running and not tally.waiting and known == ended(search, asked, known["by"])


def select(study: Study, k: int, overrides_of: Callable[[FrozenTrial], Sequence[str]]) -> dict[int, list[str]]:
    """The overrides of the best settings without a seed, by the number of the best trial of each, best first.

    Args:
        study: With one objective.
        k: How many; trials that differ in nothing but their seed are one setting.
        overrides_of: Those that a trial was composed of.

    Raises:
        InputError: if there are fewer.
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
            f"hydra.sweeper.finals.k={k}, but only {len(chosen)} settings of {study.study_name} came to a value: ask "
            f"for more trials with hydra.sweeper.n_trials, or set hydra.sweeper.finals.k={max(len(chosen), 1)}"
        )
    return chosen


def seeds_of(study: Study, count: int, seed: int, repeats: int) -> list[int]:
    """So many seeds that no trial has had: those after the largest.

    Args:
        study: Of the search.
        count: How many.
        seed: That of a trial in which none is searched.
        repeats: How many seeds a trial has had, from its own on.
    """
    had = [int(trial.params[name]) for trial in study.get_trials(deepcopy=False) for name in trial.params
           if key_of(name) == SEED]  # fmt: skip
    first = max([seed, *had]) + repeats
    return list(range(first, first + count))


def compare_finalists(
    study: Study, chosen: Mapping[int, Sequence[str]], seeds: Sequence[int], plan: MultiSeedPlan, runs: Study
) -> dict[str, Any]:
    """What the finalists came to, and which of them wins.

    Args:
        study: Of the search.
        chosen: The settings by number of trial.
        seeds: That each was run with.
        plan: Of these runs.
        runs: Their study.

    Raises:
        InputError: if none of them came to a value with each of its seeds.
    """
    sign, trials = sign_of(study, 0), study.get_trials(deepcopy=False)
    rows = [
        {"trial": number, "best": trials[number].values[0], **row_of(plan, runs, setting, seeds)}
        for number, setting in chosen.items()
    ]
    able = [row for row in rows if not row["failed"]]
    if not able:
        raise InputError(
            f"none of the finalists came to a value with each of its seeds: their tracebacks are in {plan.folder}; to "
            f"run them again, use python src/studies.py delete {runs.study_name}, and repeat the command"
        )
    best = min(able, key=lambda row: sign * row["mean"])
    for row in rows:
        if row is not best:
            add_difference(row, best)
    near = best["interval"] or 0.0
    alike = [row for row in able
             if row is best or (not row["significant"] and abs(row["mean"] - best["mean"]) <= near)]  # fmt: skip
    winner = _cheapest(alike, key=lambda row: sign * row["mean"])
    flattered = -sign * (rows[0]["best"] - rows[0]["mean"]) if rows[0]["values"] else None
    return {
        "objective": objectives(study)[0], "seeds": list(seeds), "finalists": rows, "best": best["trial"],
        "winner": winner["trial"], "rule": RULE, "optimism": flattered,
    }  # fmt: skip


def _cheapest(alike: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], float]) -> dict[str, Any]:
    """The smallest, and of equally small ones the best mean or one that a paired t-test says is faster than that."""
    known = [row["params"] for row in alike if row["params"] is not None]
    smallest = [row for row in alike if row["params"] == min(known)] if len(known) == len(alike) else alike
    best = min(smallest, key=key)

    def seconds(row: Mapping[str, Any]) -> dict[int, float]:
        return dict(zip(row["seeds"], row["all_fit_s"], strict=False))

    less = {row["trial"]: paired(seconds(row), seconds(best)) for row in smallest if row is not best}
    faster = [
        row for row in smallest if row is not best and less[row["trial"]].significant and less[row["trial"]].mean < 0
    ]
    return min(faster, key=lambda row: float(row["fit_s"])) if faster else best


def tested(plan: MultiSeedPlan, runs: Study, setting: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """What the winner came to in its last runs.

    Raises:
        InputError: if none of them came to a value.
    """
    row = row_of(plan, runs, setting, seeds)
    if not row["values"]:
        raise InputError(
            f"none of the winner's last runs came to a value: their tracebacks are in {plan.folder}; to run them "
            f"again, use python src/studies.py delete {runs.study_name}, and repeat the command"
        )
    return {"test": row}


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The finals in words."""
    objective, seeds = found["objective"], found["seeds"]
    yield (
        f"finals: {len(found['finalists'])} settings with {len(seeds)} new seeds each, {objective} as mean ± half its "
        "95 % interval"
    )
    for row in found["finalists"]:
        yield f"  trial {row['trial']}: {', '.join(words(row, found))}"
    yield f"winner: trial {found['winner']} ({found['rule']})"
    if found["optimism"] is not None:
        first = found["finalists"][0]
        by = f"flattered its best trial by {format_value(found['optimism'], objective)}"
        yield (
            f"the search {by if found['optimism'] > 0 else 'did not flatter its best trial'}: "
            f"{format_value(first['best'], objective)} there, {format_mean(first, objective)} with new seeds"
        )


def last_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The winner's last runs in words."""
    test = found["test"]
    failed = f", {test['failed']} failed" if test["failed"] else ""
    yield f"test accuracy of the winner, trained on train and val: {format_mean(test, 'test/accuracy')}{failed}"
    if found.get("champion"):
        yield str(found["champion"])


def words(row: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What is said of a finalist."""
    objective = found["objective"]
    yield format_mean(row, objective) if row["values"] else "no value"
    yield f"{format_value(row['best'], objective)} in the search"
    if row["failed"]:
        yield f"{row['failed']} failed"
    if row["params"] is not None:
        yield f"{metric_table.of('params').shown(row['params'])} parameters"
    if row["fit_s"] is not None:
        yield metric_table.of("fit_s").shown(row["fit_s"])
    if row["trial"] == found["best"]:
        yield "the best mean"
    elif row.get("p") is not None:
        apart = "told apart" if row["significant"] else "not told apart"
        yield f"{format_difference(row, objective)} against the best mean (p = {row['p']:.2g}: {apart})"
