"""Every name under which something is stored in a study or a trial, with its meaning and its writer.

Optuna keeps user attributes, which it shows to people, and system attributes, which it does not. Optuna's own
attributes that are read or written here are named in `iolaus.optuna_internals`.
"""

PREFIX = "iolaus:"
"""Begins the names of attributes that only Iolaus reads. Others may be read by tasks and trackers as well."""

# User attributes of a study:

FORMAT = f"{PREFIX}format"
"""The `FORMAT_VERSION` of the version that made the study. Written once, with its identity (`study.identity`)."""
FORMAT_VERSION = 2
"""Raised when what is stored changes so that another version would misunderstand it."""
IDENTITY = f"{PREFIX}identity"
"""The facts that make the study this one, a text for each. Written when it is opened (`study.identity`)."""
CHANGES = f"{PREFIX}changes"
"""The changes of its identity that commands have asked for: for each the time, the number of the first trial after it,
and the differences (`study.identity`)."""
MADE = f"{PREFIX}made"
"""A random text that tells it from others of its name. Written once (`study.identity`)."""
SAMPLER_SEED = f"{PREFIX}seed"
"""The sampler's seed where the command gives none. Written once, by the first command (`study.identity`)."""
SAME = f"{PREFIX}same:"
"""Begins the names of what must stay as it was for the first trial. Written by tasks (`iolaus.require_same`)."""
STUDY_FOLDER = f"{PREFIX}folder"
"""The folder that the last command searched in (`sweep.session`)."""
COMMAND = f"{PREFIX}command"
"""The last command that worked on it, and the number of its machine's cores (`sweep.session`)."""
GOALS = f"{PREFIX}goals"
"""The goals of the last command, the fields of `study.queue.Goals` (`sweep.session`)."""
STOPS = f"{PREFIX}stops"
"""The number of requests to stop its search (`study.catalog`)."""
GROWN = f"{PREFIX}n_trials"
"""The total that was asked for while a command searched (`study.catalog`), or by a command after it
(`sweep.session`)."""
ENDED = f"{PREFIX}ended"
"""The end of the search: its cause, the number of trials that count, and the limits of the command (`sweep.search`)."""
ENQUEUED = f"{PREFIX}enqueued"
"""The parameters of ``hydra.sweeper.enqueue`` that have been enqueued, so that each is once (`study.queue`)."""
SETTINGS = f"{PREFIX}settings"
"""The settings of a study that runs each with several seeds; the list only grows (`compare.multi_seed`)."""
FINAL = f"{PREFIX}final"
"""Present if the runs may look at test images, from which their value then comes (`compare.multi_seed`)."""
FINALS_RESULT = f"{PREFIX}finals"
"""The result of the finals, as `compare.finals` returns it (`sweep.follow_up`)."""
COMPARISON_RESULT = f"{PREFIX}comparison"
"""The result of a comparison, as `compare.variants` returns it (`sweep.comparison`)."""
NOTES = f"{PREFIX}notes"
"""Lines that the app wants in the report. Written by its callback, at ``on_report``."""
REPORT = f"{PREFIX}report"
"""The part of the report that only the sweep knows: the best trial, its command, the target (`sweep.summary`)."""
OF = "of:"
"""Begins the names of a part study's attributes that repeat one of the study that it belongs to (`study.identity`)."""
TRACKING_KEY = "tracking_key"
"""A random text by which study and MLflow run find each other, also a tag of the run (`tracking.mlflow_sweep`)."""
RUN_ID = "mlflow_run_id"
"""The id of the study's MLflow run (`tracking.mlflow_sweep`); also that of a trial's (`tracking.mlflow_tracker`)."""

# System attributes of a trial:

LEASE = f"{PREFIX}lease"
"""The process that runs the trial, as `system.lease.lease` has it. Written with the claim, and renewed
(`study.queue`)."""
RETRY_OF = f"{PREFIX}retry_of"
"""The number of the lost trial whose parameters it retries (`study.queue`)."""
RNG_STREAM = f"{PREFIX}rng_stream"
"""The stream of random numbers that a retry continues: that of the trial that drew its parameters (`study.queue`)."""
LOSSES = f"{PREFIX}losses"
"""The number of times that its parameters had been lost before it was made (`study.queue`)."""
END = f"{PREFIX}end"
"""The reason for which it is FAIL, one of the following (`study.queue`)."""
FAILED, LOST, INTERRUPTED, SURPLUS = "failed", "lost", "interrupted", "surplus"
"""Values of `END`."""

# User attributes of a trial, besides the overrides that all trials share, each under its key (`study.queue`):

REASON = "reason"
"""The reason for which it failed, in words (`study.queue`)."""
NO_REASON = "no reason given"
"""Stands in for a missing `REASON`."""
FOLDER = "folder"
"""The folder that it writes to, relative to the study's. Written once all parameters are chosen (`sweep.worker`)."""
NAME = "name"
"""The name that the command has for the one of its study's `SETTINGS` that it runs (`sweep.worker`)."""
RESULTS = "results"
"""The metrics of its run. Written by tasks (`iolaus.log_results`)."""

# Part studies, which follow a search: each in a study and a folder of its own.

FINALS = "finals"
"""The best settings with new seeds."""
TEST = "test"
"""The winner as it is to be used."""
