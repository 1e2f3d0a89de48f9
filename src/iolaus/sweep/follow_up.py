"""The finals of a search: its best settings run again with new seeds, then the winner as it is to be used."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import Study

from iolaus.compare import finals
from iolaus.compare.multi_seed import MultiSeedPlan, complete_runs, enqueue_runs, open_part, require_seed
from iolaus.optuna_internals import storage_of
from iolaus.search_space.overrides import replace_overrides
from iolaus.study.attributes import FINALS, FINALS_RESULT, RESULTS, TEST
from iolaus.study.identity import Direction, directions_of
from iolaus.study.plan import Plan
from iolaus.sweep.launch import wait_for_others
from iolaus.sweep.session import Session, say, store
from iolaus.sweep.summary import command, overrides_of


def confirm(session: Session, rule: finals.Rule, plan: Plan, study: Study) -> None:
    """Run the finals of a search, and its winner's last runs; say and store what they came to.

    Raises:
        InputError: if there are too few settings, or none came to a value.
        SweepError: if the workers ended early.
    """
    wait_for_others(plan.open(storage_of(study)))  # the trials of other commands may be better
    chosen = finals.select(study, rule.k, lambda trial: overrides_of(trial, plan))
    seed = int(plan.fixed["seed"]) if "seed" in plan.fixed else require_seed(session.composer.sweep_config)
    all_seeds = finals.new_seeds(study, max(rule.r, rule.n_test), seed, session.settings["repeats"])
    seeds, test_seeds = all_seeds[: rule.r], all_seeds[: rule.n_test]
    settings = {f"as trial {number}": setting for number, setting in chosen.items()}
    final_plan, runs = _run_part(session, plan, study, FINALS, settings, seeds)
    result = finals.compare_finalists(study, chosen, seeds, final_plan, runs)
    for line in finals.lines(result):
        say(line)
    winner = chosen[result["winner"]]
    results = [trial.user_attrs.get(RESULTS, {}) for trial in complete_runs(final_plan, runs, winner, seeds).values()]
    last = session.ask("final_overrides", results=results)
    if last is not None:
        result |= _test_winner(session, plan, study, replace_overrides(winner, last), test_seeds, result, results)
    store(study, FINALS_RESULT, result)
    if session.settings["report"]:
        session.report(plan, study)
    session.end(study, "FINISHED")
    say(f"the winner's settings once more:  {command(winner, session.composer)}")


def _test_winner(
    session: Session,
    plan: Plan,
    study: Study,
    setting: Sequence[str],
    seeds: Sequence[int],
    result: Mapping[str, Any],
    results: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Run the winner as it is to be used, and return what is added to the result of the finals."""
    test_plan, runs = _run_part(session, plan, study, TEST, {"the winner": setting}, seeds)
    added = finals.winner_result(test_plan, runs, setting, seeds)
    trials = list(complete_runs(test_plan, runs, setting, seeds).values())
    found = {**result, **added}
    added |= session.ask("on_winner", study=study, found=found, results=results, trials=trials) or {}
    for line in finals.last_lines({**result, **added}):
        say(line)
    return added


def _run_part(
    session: Session, plan: Plan, study: Study, part: str, settings: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> tuple[MultiSeedPlan, Study]:
    """Run settings that follow a search, in a study of their own."""
    directions: Sequence[Direction] = ["maximize"] if part == TEST else directions_of(study)
    opened, runs = open_part(plan, study, part, directions)
    queued = enqueue_runs(opened, runs, settings, seeds)
    session.run_all(queued, runs, settings.values(), seeds)
    return queued, runs
