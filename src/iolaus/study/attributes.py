"""Every name under which something is stored in a study or a trial: what it means, and who writes it.

Optuna keeps user attributes, which it shows to people, and system attributes, which it does not. Optuna's own
attributes that are read or written here are named in `iolaus.optuna_internals`.
"""

# User attributes of a study:

FORMAT = "iolaus:format"
"""The `FORMAT_VERSION` of who made the study. Written once, as the study is opened first (`study.identity`)."""
FORMAT_VERSION = 2
"""Raised when what is stored changes so that another version would misunderstand it."""
IDENTITY = "iolaus:identity"
"""What makes the study this one: a text by fact. Written as it is opened (`study.identity`)."""
CHANGES = "iolaus:changes"
"""Each change of its identity that a command has asked for: when, from which trial on, what (`study.identity`)."""
MADE = "iolaus:made"
"""A random text that tells it from others of its name. Written once (`study.identity`)."""
SAMPLER_SEED = "iolaus:seed"
"""The sampler's seed where the command gives none. Written once, by the first command (`study.identity`)."""
SAME = "iolaus:same:"
"""Begins the names of what must stay as it was for the first trial. Written by tasks (`iolaus.require_same`)."""
STUDY_FOLDER = "iolaus:folder"
"""The folder that the last command searched in (`sweep`)."""
COMMAND = "iolaus:command"
"""The last command that worked on it, and how many cores it had (`sweep`)."""
GOALS = "iolaus:goals"
"""The goals of the last command, as `study.queue.Goals` has them (`sweep`)."""
STOPS = "iolaus:stops"
"""How often somebody has asked for its end (``studies.py stop``)."""
GROWN = "iolaus:n_trials"
"""The total that somebody has asked for while it ran (``studies.py grow``, and `sweep` after it)."""
ENDED = "iolaus:ended"
"""What ended the search, after how many trials of how many (`sweep`)."""
ENQUEUED = "iolaus:enqueued"
"""The parameters that were put before all other trials (`search_space.enqueue`)."""
SETTINGS = "iolaus:settings"
"""The settings of a study that runs each with some seeds; the list only grows (`compare.multi_seed`)."""
FINAL = "iolaus:final"
"""Present where the runs look at test images, of which their value is (`compare.multi_seed`)."""
FINALS_RESULT = "iolaus:finals"
"""The result of the finals, as `compare.finals` gives it (`sweep.follow_up`)."""
COMPARISON_RESULT = "iolaus:comparison"
"""The result of a comparison, as `compare.variants` gives it (`sweep.follow_up`)."""
NOTES = "iolaus:notes"
"""Lines that the app wants to stand in the report (an app's callback)."""
REPORT = "iolaus:report"
"""What only the sweep knew as it wrote the report: the best trial, its command, the target (`sweep.summary`)."""
OF = "of:"
"""Begins the attributes of a part that say something of the study that it is a part of (`study.identity`)."""
TRACKING_KEY = "tracking_key"
"""A random text by which study and MLflow run find each other, also a tag of the run (`tracking.mlflow_sweep`)."""
RUN_ID = "mlflow_run_id"
"""The MLflow run of a study, and of a trial (`tracking`)."""

# System attributes of a trial:

LEASE = "iolaus:lease"
"""Who runs the trial, as `system.lease.lease` has it. Written with the claim and renewed (`study.queue`)."""
RETRY_OF = "iolaus:retry_of"
"""The number of the lost trial whose parameters it takes up (`study.queue`)."""
RNG_STREAM = "iolaus:rng_stream"
"""The stream of random numbers that a retry continues: that of the trial that drew its parameters (`study.queue`)."""
LOSSES = "iolaus:losses"
"""How often its parameters had been lost before it was made (`study.queue`)."""
END = "iolaus:end"
"""Why it is FAIL: one of the following (`study.queue`)."""
FAILED, LOST, INTERRUPTED, SURPLUS = "failed", "lost", "interrupted", "surplus"
"""Values of `END`."""

# User attributes of a trial:

REASON = "reason"
"""Why it failed, in words (`study.queue`)."""
NO_REASON = "no reason given"
"""Stands in for a missing `REASON`."""
FOLDER = "folder"
"""Where it writes, relative to the study's folder. Written once all parameters are chosen (`sweep.worker`)."""
NAME = "name"
"""Which of its study's `SETTINGS` it runs, by the name that a command gave it (`sweep.worker`)."""
RESULTS = "results"
"""The metrics of its run. Written by tasks (`iolaus.log_results`)."""

# The names of parts:

FINALS, TEST = "finals", "test"
"""What follows a search in a study of its own: its best settings with new seeds, and the winner as it is to be used."""
