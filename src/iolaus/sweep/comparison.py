"""A comparison: listed settings, each run with some seeds, and each compared with the first."""

from collections.abc import Mapping, Sequence

from iolaus.compare import variants
from iolaus.compare.multi_seed import enqueue_runs
from iolaus.errors import InputError
from iolaus.study.attributes import COMPARISON_RESULT
from iolaus.study.identity import Direction
from iolaus.study.plan import Plan, claim_lock
from iolaus.sweep.dry_run import dry_comparison
from iolaus.sweep.session import Session, say, store


def compare(session: Session, plan: Plan, directions: Sequence[Direction], facts: Mapping[str, str]) -> None:
    """Run a comparison; say and store what it came to.

    Args:
        session: With ``hydra.sweeper.variants`` and ``seeds``.
        plan: Searches nothing.
        directions: Of the objectives.
        facts: The identity of the study.

    Raises:
        InputError: if it cannot be made, or the first setting came to no value.
        SweepError: if the workers ended early.
    """
    if len(directions) > 1:
        raise InputError(f"hydra.sweeper.variants needs one objective, but there are {len(directions)}")
    settings = variants.read(session.settings["variants"], plan, session.composer, session.whitelist)
    seeds = variants.seeds(session.settings["seeds"], session.composer.compose(plan.overrides({})))
    if session.settings["dry_run"]:
        for line in dry_comparison(session, plan, settings, seeds):
            say(line)
        return
    with claim_lock(plan):
        study = session.open_study(plan, directions, facts)
    queued = enqueue_runs(plan, study, settings, seeds)
    session.run_all(queued, study, settings.values(), seeds)
    result = variants.compare_settings(queued, study, settings, seeds)
    store(study, COMPARISON_RESULT, result)
    for line in variants.lines(result):
        say(line)
    if session.settings["report"]:
        session.report(plan, study)
        session.end(study, "FINISHED")
