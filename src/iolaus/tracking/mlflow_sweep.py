"""The MLflow run of a sweep: the parent of its trials' runs, and what sees to it that none of them stays open."""

import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from optuna.trial import TrialState

from iolaus.search_space.keys import key_element
from iolaus.study.attributes import END, FINALS_RESULT, IDENTITY, INTERRUPTED, OF, REASON, RUN_ID, SURPLUS, TRACKING_KEY
from iolaus.study.tally import Tally
from iolaus.task import current_repeat

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

PARENT = "mlflow.parentRunId"
REPEAT = "repeat"
"""A tag of the run of a trial's repeat: which of them it is, from 0."""
VALUE = "trial/value"
"""A metric of such a run: the trial's value, which is the mean of its repeats."""
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def tags_of(trial: "Trial") -> dict[str, str]:
    """The tags that lead from a trial's run to its study and to the sweep's run."""
    study = trial.study
    tags = {"study": study.study_name, "trial": str(trial.number), "mlflow.runName": f"trial {trial.number}"}
    if (repeat := current_repeat()) is not None:
        tags |= {REPEAT: str(repeat), "mlflow.runName": f"trial {trial.number}, repeat {repeat}"}
    parent = study.user_attrs.get(RUN_ID)  # missing where another sweeper's callback would have made it
    return tags | ({PARENT: parent} if parent is not None else {})


def tags_of_pruned(trial: "FrozenTrial") -> dict[str, str]:
    """The tags that tell a pruned trial, and the step, or epoch, at which it ended, if it had reported any."""
    step = trial.last_step
    return {"state": "PRUNED", **({} if step is None else {"pruned_at_step": str(step)})}


def begin(client: Any, experiment_id: str, study: "Study", folder: Path) -> None:
    """Make the sweep's run, or open it again, and end what a killed sweep has left running in it."""
    with FileLock(folder / "tracking.lock"):  # of two commands at once only one makes it
        if TRACKING_KEY not in study.user_attrs:
            study.set_user_attr(TRACKING_KEY, uuid.uuid4().hex)
        run_id = _find(client, experiment_id, study)
        if run_id is None:
            tags = {TRACKING_KEY: study.user_attrs[TRACKING_KEY], "study": study.study_name, "output_dir": str(folder)}
            whole = study.user_attrs.get(f"{OF}{RUN_ID}")
            tags |= {} if whole is None else {PARENT: whole}
            run_id = client.create_run(experiment_id, tags=tags, run_name=study.study_name).info.run_id
            for name, value in study.user_attrs.get(IDENTITY, {}).items():
                client.log_param(run_id, _param(name), value[:5000])
        else:
            client.update_run(run_id, status="RUNNING")
        if study.user_attrs.get(RUN_ID) != run_id:
            study.set_user_attr(RUN_ID, run_id)
        _end_children(client, experiment_id, study, run_id)


def end(client: Any, experiment_id: str, study: "Study", folder: Path, status: str) -> None:
    """Record how the sweep ended: its status is one of MLflow's, FINISHED, FAILED or KILLED."""
    with FileLock(folder / "tracking.lock"):
        run_id = study.user_attrs[RUN_ID]
        _end_children(client, experiment_id, study, run_id)
        trials = study.get_trials(deepcopy=False)
        tally = Tally.of(study, trials)
        counts = {state.name.lower(): sum(trial.state == state for trial in trials) for state in DONE}
        for name, count in {**counts, "failed": tally.failed, "counted": tally.counted}.items():
            client.log_metric(run_id, f"trials/{name}", count)
        best = tally.best
        if len(study.directions) == 1 and best is not None:
            client.log_metric(run_id, "best/value", best.value)
            client.log_metric(run_id, "best/trial", best.number)
            client.set_tag(run_id, "best_run_id", best.user_attrs.get(RUN_ID, ""))
        for name, value in metrics_of(study.user_attrs.get(FINALS_RESULT, {})).items():
            client.log_metric(run_id, name, value)
        for path in (folder / "optimization_results.yaml", folder / "report.html"):
            if path.exists():
                client.log_artifact(run_id, str(path))
        if (folder / "report").is_dir():
            client.log_artifacts(run_id, str(folder / "report"), "report")
        client.set_terminated(run_id, status)


def metrics_of(found: Mapping[str, Any]) -> dict[str, float]:
    """What the finals of a sweep came to, as metrics of its run."""
    values = {"finals/optimism": found.get("optimism")}
    for part in ("finals", "test"):
        row = found.get("test") if part == "test" else _winner(found)
        if row:
            values |= {f"{part}/mean": row["mean"], f"{part}/interval": row["interval"], f"{part}/n": row["n"]}
    return {name: value for name, value in values.items() if value is not None}


def _winner(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((row for row in found.get("finalists", []) if row["trial"] == found["winner"]), None)


def _find(client: Any, experiment_id: str, study: "Study") -> str | None:
    found = client.search_runs(
        [experiment_id], f"tags.{TRACKING_KEY} = '{study.user_attrs[TRACKING_KEY]}'", max_results=1
    )
    return found[0].info.run_id if found else None


def _end_children(client: Any, experiment_id: str, study: "Study", parent: str) -> None:
    """Give each finished trial a finished run: end those that a killed process left open, make those it never made."""
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    recorded = set()
    page = None
    while page is None or page.token:
        page = client.search_runs([experiment_id], f"tags.`{PARENT}` = '{parent}'", page_token=page and page.token)
        for run in page:
            number = int(run.data.tags.get("trial", -1))  # a user may have put a run of another kind there
            recorded.add(number)
            if number in trials:
                _finish(client, run, trials[number])
    for number, trial in trials.items():
        # It failed before it had one. A surplus number was never a trial.
        if trial.state.name == "FAIL" and number not in recorded and trial.system_attrs.get(END) != SURPLUS:
            tags = {"study": study.study_name, "trial": str(number), PARENT: parent}
            run_id = client.create_run(experiment_id, tags=tags, run_name=f"trial {number}").info.run_id
            for name, value in trial.params.items():
                client.log_param(run_id, _param(key_element(name)), str(value)[:5000])
            _end_run(client, run_id, trial)


def _finish(client: Any, run: Any, trial: "FrozenTrial") -> None:
    """Have a run say what became of its trial, as far as it could not know it when it ended."""
    run_id, tags = run.info.run_id, run.data.tags
    if run.info.status == "RUNNING" and trial.state.is_finished():
        _end_run(client, run_id, trial)
    elif trial.state == TrialState.PRUNED and "state" not in tags:  # between two of its repeats
        for name, value in tags_of_pruned(trial).items():
            client.set_tag(run_id, name, value)
    elif trial.state == TrialState.COMPLETE and REPEAT in tags and VALUE not in run.data.metrics:
        client.log_metric(run_id, VALUE, trial.values[0])


def _param(name: str) -> str:
    """What MLflow may call the key of an override: it takes neither its ``+`` nor its ``~`` nor its ``@``."""
    return re.sub(r"[^\w\-. :/]", "_", name.lstrip("+~"))


def _end_run(client: Any, run_id: str, trial: "FrozenTrial") -> None:
    if trial.state == TrialState.PRUNED:
        for name, value in tags_of_pruned(trial).items():
            client.set_tag(run_id, name, value)
    if REASON in trial.user_attrs:
        client.set_tag(run_id, REASON, trial.user_attrs[REASON][:5000])
    client.set_terminated(run_id, status_of(trial))


def status_of(trial: "FrozenTrial") -> str:
    """What MLflow is to call the end of a trial."""
    if trial.state in DONE:
        return "FINISHED"
    return "KILLED" if trial.system_attrs.get(END) == INTERRUPTED else "FAILED"
