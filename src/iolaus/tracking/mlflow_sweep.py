"""The MLflow run of a sweep: the parent of its trials' runs, which sees to it that none of them stays open."""

import re
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
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
"""The tag of the run of a trial's repeat: its number, from 0."""
VALUE = "trial/value"
"""The metric of such a run: the trial's value, which is the mean of its repeats."""
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def tags_of(trial: "Trial") -> dict[str, str]:
    """Return the tags that lead from a trial's run to its study and to the sweep's run."""
    study = trial.study
    tags = {"study": study.study_name, "trial": str(trial.number), "mlflow.runName": f"trial {trial.number}"}
    if (repeat := current_repeat()) is not None:
        tags |= {REPEAT: str(repeat), "mlflow.runName": f"trial {trial.number}, repeat {repeat}"}
    parent = study.user_attrs.get(RUN_ID)  # missing where another sweeper's callback would have made it
    return tags | ({PARENT: parent} if parent is not None else {})


def tags_of_pruned(trial: "FrozenTrial") -> dict[str, str]:
    """Return the tags of a pruned trial: its state, and the step at which it ended, if it had reported any."""
    step = trial.last_step
    return {"state": "PRUNED", **({} if step is None else {"pruned_at_step": str(step)})}


def status_of(trial: "FrozenTrial") -> str:
    """Return MLflow's status for the end of a trial."""
    if trial.state in DONE:
        return "FINISHED"
    return "KILLED" if trial.system_attrs.get(END) == INTERRUPTED else "FAILED"


def param_name(name: str) -> str:
    """Return MLflow's name for the key of an override, of which it takes neither ``+`` nor ``~`` nor ``@``."""
    return re.sub(r"[^\w\-. :/]", "_", name.lstrip("+~"))


def begin(client: Any, experiment_id: str, study: "Study", folder: Path) -> None:
    """Make the sweep's run, or open it again, and end the runs in it that a killed sweep has left open."""
    with FileLock(folder / "tracking.lock"):  # of two commands at once only one makes it
        run_id = _find(client, experiment_id, study)
        if run_id is None:
            run_id = _create(client, experiment_id, study, folder)
        else:
            client.update_run(run_id, status="RUNNING")
        if study.user_attrs.get(RUN_ID) != run_id:
            study.set_user_attr(RUN_ID, run_id)
        _end_children(client, experiment_id, study, run_id)


def end(client: Any, experiment_id: str, study: "Study", folder: Path, status: str) -> None:
    """Record the end of the sweep: its status is one of MLflow's, FINISHED, FAILED or KILLED."""
    if RUN_ID not in study.user_attrs:  # it was not tracked when it began
        begin(client, experiment_id, study, folder)
    with FileLock(folder / "tracking.lock"):
        run_id = study.user_attrs[RUN_ID]
        _end_children(client, experiment_id, study, run_id)
        for name, value in {**_metrics_of_trials(study), **metrics_of(study.user_attrs.get(FINALS_RESULT, {}))}.items():
            client.log_metric(run_id, name, value)
        best = Tally.of(study, study.get_trials(deepcopy=False)).best
        if len(study.directions) == 1 and best is not None:
            client.set_tag(run_id, "best_run_id", best.user_attrs.get(RUN_ID, ""))
        for path in (folder / "optimization_results.yaml", folder / "report.html"):
            if path.exists():
                client.log_artifact(run_id, str(path))
        if (folder / "report").is_dir():
            client.log_artifacts(run_id, str(folder / "report"), "report")
        client.set_terminated(run_id, status)


def metrics_of(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the result of a search's finals as metrics of its run."""
    values = {"finals/optimism": found.get("optimism")}
    for part in ("finals", "test"):
        row = found.get("test") if part == "test" else _winner(found)
        if row:
            values |= {f"{part}/mean": row["mean"], f"{part}/interval": row["interval"], f"{part}/n": row["n"]}
    return {name: value for name, value in values.items() if value is not None}


def _winner(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((row for row in found.get("finalists", []) if row["trial"] == found["winner"]), None)


def _metrics_of_trials(study: "Study") -> dict[str, float]:
    """Return how many trials have ended and, for one objective, the best of them, as metrics of the sweep's run."""
    trials = study.get_trials(deepcopy=False)
    tally = Tally.of(study, trials)
    counts = {state.name.lower(): sum(trial.state == state for trial in trials) for state in DONE}
    values: dict[str, float] = {f"trials/{name}": count for name, count in counts.items()}
    values |= {"trials/failed": tally.failed, "trials/counted": tally.counted}
    if len(study.directions) > 1 or tally.best is None:
        return values
    return {**values, "best/value": tally.best.values[0], "best/trial": tally.best.number}


def _create(client: Any, experiment_id: str, study: "Study", folder: Path) -> str:
    """Make the sweep's run, within that of the whole if the study is a part of another, and return its id."""
    tags = {TRACKING_KEY: study.user_attrs[TRACKING_KEY], "study": study.study_name, "output_dir": str(folder)}
    whole = study.user_attrs.get(f"{OF}{RUN_ID}")
    tags |= {} if whole is None else {PARENT: whole}
    run_id = str(client.create_run(experiment_id, tags=tags, run_name=study.study_name).info.run_id)
    for name, value in study.user_attrs.get(IDENTITY, {}).items():
        client.log_param(run_id, param_name(name), value[:5000])
    return run_id


def _find(client: Any, experiment_id: str, study: "Study") -> str | None:
    """Return the id of the sweep's run, which it and its study find each other by; None if there is none yet."""
    if TRACKING_KEY not in study.user_attrs:
        study.set_user_attr(TRACKING_KEY, uuid.uuid4().hex)
    wanted = f"tags.{TRACKING_KEY} = '{study.user_attrs[TRACKING_KEY]}'"
    found = client.search_runs([experiment_id], wanted, max_results=1)
    return found[0].info.run_id if found else None


def _end_children(client: Any, experiment_id: str, study: "Study", parent: str) -> None:
    """Give each trial that has ended a run that has: end those that are open or ended too well, make those missing."""
    trials = study.get_trials(deepcopy=False)
    ended_well: dict[int, list[str]] = defaultdict(list)
    told: set[int] = set()
    for run in _children(client, experiment_id, parent):
        number = int(run.data.tags.get("trial", -1))  # a user may have put a run of another kind there
        if not 0 <= number < len(trials):
            continue
        _complete(client, run, trials[number])
        if run.info.status == "FINISHED":
            ended_well[number].append(run.info.run_id)
        else:
            told.add(number)
    for trial in trials:
        if trial.state != TrialState.FAIL or trial.number in told or trial.system_attrs.get(END) == SURPLUS:
            continue  # a surplus number was never a trial
        newest = ended_well[trial.number][:1]  # its value was none, or its worker was lost after it
        run_id = newest[0] if newest else _create_child(client, experiment_id, study, parent, trial)
        _end_run(client, run_id, trial)


def _children(client: Any, experiment_id: str, parent: str) -> Iterator[Any]:
    """Give the runs within a run, the newest first."""
    page = None
    while page is None or page.token:
        page = client.search_runs([experiment_id], f"tags.`{PARENT}` = '{parent}'", page_token=page and page.token)
        yield from page


def _create_child(client: Any, experiment_id: str, study: "Study", parent: str, trial: "FrozenTrial") -> str:
    """Make the run of a trial that failed before it had one, and return its id."""
    tags = {"study": study.study_name, "trial": str(trial.number), PARENT: parent}
    run_id = str(client.create_run(experiment_id, tags=tags, run_name=f"trial {trial.number}").info.run_id)
    for name, value in trial.params.items():
        client.log_param(run_id, param_name(key_element(name)), str(value)[:5000])
    return run_id


def _complete(client: Any, run: Any, trial: "FrozenTrial") -> None:
    """Add to a run what it could not know of its trial when it ended."""
    run_id, tags = run.info.run_id, run.data.tags
    if run.info.status == "RUNNING" and trial.state.is_finished():
        _end_run(client, run_id, trial)
    elif trial.state == TrialState.PRUNED and "state" not in tags:  # between two of its repeats
        for name, value in tags_of_pruned(trial).items():
            client.set_tag(run_id, name, value)
    elif trial.state == TrialState.COMPLETE and REPEAT in tags and VALUE not in run.data.metrics:
        client.log_metric(run_id, VALUE, trial.values[0])


def _end_run(client: Any, run_id: str, trial: "FrozenTrial") -> None:
    """End a run as its trial has ended."""
    if trial.state == TrialState.PRUNED:
        for name, value in tags_of_pruned(trial).items():
            client.set_tag(run_id, name, value)
    if REASON in trial.user_attrs:
        client.set_tag(run_id, REASON, trial.user_attrs[REASON][:5000])
    client.set_terminated(run_id, status_of(trial))
