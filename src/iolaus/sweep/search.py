"""A search: workers claim trials until there is nothing left to claim, then the best is shown."""

from pathlib import Path

from optuna.study import Study
from optuna.trial import TrialState

from iolaus.compare.finals import describe_end
from iolaus.study.attributes import ENDED
from iolaus.study.plan import Plan
from iolaus.study.queue import ENDS, FAILURES, TOTAL
from iolaus.study.tally import Tally
from iolaus.sweep.session import Session, SweepError, WorkResult, failures, leave_interrupted, say, store
from iolaus.sweep.summary import passed, summary, write_results


def search(session: Session, plan: Plan, study: Study) -> None:
    """Search until the study has its total, or something else ends it, and show the best.

    Raises:
        SweepError: if too many trials failed, none came to a value, or the workers ended early.
    """

    def leave(interrupted: bool) -> None:
        write_results(study, Path(plan.folder))
        if session.settings["report"] and not interrupted:
            session.report(plan, study)

    result = session.work(plan, study, on_end=leave)
    tally = result.queue.tally()
    for line in summary(study, plan, session.composer):
        say(line)
    if (target := session.settings["target"]) is not None:
        say(passed(study, target))
    if result.interrupted:
        leave_interrupted(result.progress(tally))
    ended_by = _conclude(result, plan, tally)
    say(f"ended by {ENDS[ended_by].format(**session.settings)}: {result.progress(tally)}")
    store(study, ENDED, describe_end(result.queue, session.settings, ended_by))
    if tally.best is None:
        complete = any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False))
        missing = "keeps all constraints" if complete else "came to a value"
        raise SweepError(f"error: none of {tally.counted} trials {missing} ({tally.pruned} were pruned)")


def _conclude(result: WorkResult, plan: Plan, tally: Tally) -> str:
    """Return what has ended the search, and say which trials failed."""
    ended_by, failed = result.queue.ended_by(tally), failures(tally)
    if ended_by == FAILURES:
        raise SweepError(
            f"error: {tally.failed} of {tally.counted} trials failed, more than "
            f"hydra.sweeper.max_failure_rate={plan.goals.max_failure_rate} allows:\n  "
            + "\n  ".join(failed[1:])
            + f"\nTheir tracebacks are in their folders in {plan.folder}. Fix the cause; then delete this study, "
            "search under another study_name, or go on with a higher rate."
        )
    if tally.failed:
        say("\n  ".join(failed))
    if ended_by is None or (result.problem is not None and ended_by != TOTAL):
        raise result.ended_early(result.progress(tally))
    return ended_by
