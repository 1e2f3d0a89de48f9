"""What follows a search: its best settings again with new seeds, and the winner among them.

The best of many trials on one split flatters itself. So the best `k` settings are run again with `r` seeds that no
trial had, on the same split. Of those whose mean a paired t-test cannot tell from the best one, the winner is the one
with the fewest parameters, and of equally many the one that trains in the least time.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from iolaus.compare import Mean, mean_of, paired
from iolaus.current import RESULTS
from iolaus.errors import InputError, require
from iolaus.listed import SEED, Listed, ran, require_seed, without_seed
from iolaus.outcome import objectives, sign_of
from iolaus.overrides import key_of
from iolaus.search import ENDED, Search
from iolaus.tally import keeps_constraints

FOUND = "iolaus:finals"
"""A user attribute of a study: what its finals came to, as `compared` and `tested` give it."""
RULE = "of those that a paired t-test at 95 % cannot tell from the best mean, the smallest, then the fastest"


@dataclass(frozen=True)
class Rule:
    """The key ``hydra.sweeper.finals``.

    Args:
        k: How many settings.
        r: With how many seeds each.
    """

    k: int
    r: int


def read(given: Any, directions: Sequence[str], n_trials: int, config: DictConfig) -> Rule | None:
    """What ``hydra.sweeper.finals`` says; None if there are to be none.

    Raises:
        InputError: for what could not be done after the search.
    """
    form = "such as {k: 3, r: 5}"
    require(isinstance(given, Mapping) and set(given) == {"k", "r"}, "hydra.sweeper.finals", form, given)
    k, r = given["k"], given["r"]
    if k == 0:
        return None
    require(type(k) is int and k >= 1, "hydra.sweeper.finals.k", "at least 1, or 0 for none", k)
    require(type(r) is int and r >= 2, "hydra.sweeper.finals.r", "at least 2, or nothing says how sure a mean is", r)
    require(k <= n_trials, "hydra.sweeper.finals.k", f"at most hydra.sweeper.n_trials={n_trials}", k)
    if len(directions) > 1:
        raise InputError(f"hydra.sweeper.finals needs one objective, but there are {len(directions)}")
    require_seed(config)
    return Rule(k, r)


def may_follow(search: Search, study: Study) -> bool:
    """Whether the search has ended already, if only by its time, and nobody has asked for more trials since."""
    known, tally = study.user_attrs.get(ENDED), search.tally()
    same = known is not None and (known["counted"], known["n_trials"]) == (tally.counted, search.goals.n_trials)
    return same and not tally.running


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
        if len(chosen) < k and setting not in chosen.values():
            chosen[trial.number] = setting
    if len(chosen) < k:
        raise InputError(
            f"hydra.sweeper.finals.k={k}, but only {len(chosen)} settings of {study.study_name} came to a value: ask "
            f"for more trials with hydra.sweeper.n_trials, or set hydra.sweeper.finals.k={max(len(chosen), 1)}"
        )
    return chosen


def seeds_of(study: Study, r: int, config: DictConfig, repeats: int) -> list[int]:
    """So many seeds that no trial has had: those after the largest."""
    had = [int(trial.params[name]) for trial in study.get_trials(deepcopy=False) for name in trial.params
           if key_of(name) == SEED]  # fmt: skip
    first = max([require_seed(config), *had]) + repeats
    return list(range(first, first + r))


def compared(
    study: Study, chosen: Mapping[int, Sequence[str]], seeds: Sequence[int], plan: Listed, runs: Study
) -> dict[str, Any]:
    """What the finalists came to, and which of them wins.

    Args:
        study: Of the search.
        chosen: The settings by number of trial.
        seeds: That each was run with.
        plan: Of these runs.
        runs: Their study.

    Raises:
        InputError: if none of them came to a value with at least two seeds.
    """
    sign, trials = sign_of(study, 0), study.get_trials(deepcopy=False)
    rows = []
    for number, setting in chosen.items():
        done = ran(plan, runs, setting, seeds)
        values = {seed: trial.values[0] for seed, trial in done.items()}
        results = [trial.user_attrs.get(RESULTS, {}) for trial in done.values()]
        row: dict[str, Any] = {"trial": number, "best": trials[number].values[0], "failed": len(seeds) - len(done)}
        row |= {"values": list(values.values()), "seeds": list(values)}
        row |= asdict(mean_of(list(values.values()))) if values else {"mean": None}
        for name in ("params", "fit_s"):
            known = [result[name] for result in results if name in result]
            row[name] = statistics.fmean(known) if known else None
        rows.append(row)
    able = [row for row in rows if not row["failed"]]
    if not able:
        raise InputError("none of the finalists came to a value with each of its seeds, so none of them can win")
    best = min(able, key=lambda row: sign * row["mean"])
    for row in rows:
        if row is best or not row["values"]:
            continue
        found = paired(_by_seed(row), _by_seed(best))
        row |= {"difference": found.mean, "difference_interval": found.interval, "p": found.p}
        row["told_apart"] = found.told_apart
    alike = [row for row in able if row is best or not row["told_apart"]]
    costs_known = all(row["params"] is not None for row in alike)
    winner = min(alike, key=lambda row: (row["params"], row["fit_s"])) if costs_known else best
    flattered = rows[0]["best"] - rows[0]["mean"] if rows[0]["values"] else None
    return {
        "objective": objectives(study)[0], "seeds": list(seeds), "finalists": rows, "best": best["trial"],
        "winner": winner["trial"], "rule": RULE, "optimism": flattered if flattered is None else -sign * flattered,
    }  # fmt: skip


def tested(plan: Listed, runs: Study, setting: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """What the winner came to in its last runs.

    Raises:
        InputError: if none of them came to a value.
    """
    done = ran(plan, runs, setting, seeds)
    if not done:
        raise InputError(f"none of the winner's last runs came to a value: their tracebacks are in {plan.folder}")
    values = [trial.values[0] for trial in done.values()]
    attrs = [trial.user_attrs for trial in done.values()]
    folders = [str(trial.number) for trial in done.values()]
    return {"test": {"values": values, **asdict(mean_of(values)), "seeds": list(done), "folders": folders,
                     "runs": [known.get("mlflow_run_id") for known in attrs]}}  # fmt: skip


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
        by = f"flattered its best trial by {in_words(found['optimism'], objective)}"
        yield (
            f"the search {by if found['optimism'] > 0 else 'did not flatter its best trial'}: "
            f"{in_words(first['best'], objective)} there, {mean_in_words(first, objective)} with new seeds"
        )


def last_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The winner's last runs in words."""
    test = found["test"]
    yield f"test accuracy of the winner, trained on train and val: {mean_in_words(test, 'test/accuracy')}"
    if found.get("champion"):
        yield str(found["champion"])


def words(row: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What is said of a finalist."""
    objective = found["objective"]
    yield mean_in_words(row, objective) if row["values"] else "no value"
    yield f"{in_words(row['best'], objective)} in the search"
    if row["failed"]:
        yield f"{row['failed']} failed"
    if row["params"] is not None:
        yield f"{row['params']:,.0f} parameters, {row['fit_s']:.1f} s"
    if row["trial"] == found["best"]:
        yield "the best mean"
    elif row.get("p") is not None:
        apart = "told apart" if row["told_apart"] else "not told apart"
        half = in_words(row["difference_interval"], objective)
        difference = f"{in_words(row['difference'], objective, '+').removesuffix(' %')} ± {half}"
        yield f"{difference} against the best mean (p = {row['p']:.2g}: {apart})"


def in_words(value: float, objective: str, sign: str = "") -> str:
    """A value of an objective; accuracies in percent."""
    return f"{100 * value:{sign}.2f} %" if objective.endswith("accuracy") else f"{value:{sign}.6g}"


def mean_in_words(row: Mapping[str, Any], objective: str) -> str:
    """A mean with its interval and n; accuracies in percent."""
    mean = Mean(row["mean"], row["interval"], row["n"])
    return mean.in_words(100, " %", 2) if objective.endswith("accuracy") else mean.in_words()


def _by_seed(row: Mapping[str, Any]) -> dict[int, float]:
    return dict(zip(row["seeds"], row["values"], strict=True))
