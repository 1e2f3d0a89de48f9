"""Train one classifier: ``python src/train.py model=cnn optimizer.lr=0.01``.

Everything that happens in a run stands here in its order; the rest is in ``src/iolaus/``, one concern a module.
"""

import functools
import gc
import json
import logging
import os
import shlex
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS, instantiate
from omegaconf import DictConfig, OmegaConf

import iolaus
from iolaus import command_line
from iolaus.classifier.run import config
from iolaus.classifier.run.objective import excess, monitored, objectives
from iolaus.errors import InputError
from iolaus.system.exit import skip_teardown

log = logging.getLogger(__name__)
config.register()
if not {"-m", "--multirun"} & set(sys.argv):
    gc.disable()  # composing leaves no garbage, and looking for it is a twentieth of --help
if "OMP_WAIT_POLICY" not in os.environ:
    # PyTorch's threads spin while they wait for each other, by default so long that another training beside this one
    # makes both seventy times slower; a thirtieth of that is as fast alone (benchmarks/workers.py)
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


# What a configuration may call is not limited: it is written by whoever types the command, and may name their models.
@hydra.main(config_path="../conf", config_name="config", execution_whitelist=UNSAFE_DISABLE_EXECUTION_CHECKS)
def main(cfg: DictConfig) -> float | list[float]:
    """Run from data to model, and give the objective's value, or a list of them for several."""
    config.check(cfg)
    job = HydraConfig.get()
    again = cfg.resume is not None or cfg.from_run is not None or cfg.from_trial is not None
    if job.mode == RunMode.RUN and not again and job.runtime.choices["hparams_search"] not in (None, "null"):
        raise InputError("hparams_search needs -m: without it one run is made, and looks at the test set")

    # Imported only now: --help and a mistake in the configuration answer without waiting for PyTorch. None of what is
    # made until the first batch is garbage, and to look for it would be a fifth of the imports.
    gc.disable()
    import torch

    from iolaus.classifier.models import build
    from iolaus.classifier.run import reproduce, test_set_log
    from iolaus.classifier.training import checkpoint, loop, metrics
    from iolaus.classifier.training.device import (
        deterministic,
        keep_memory,
        place,
        resolve_device,
        resolve_precision,
        set_threads,
    )
    from iolaus.classifier.training.progress import Progress, summary
    from iolaus.system import provenance

    output = Path(job.runtime.output_dir)
    searches = job.mode == RunMode.MULTIRUN and job.runtime.choices["hydra/sweeper"] != "basic"
    in_search = searches and not iolaus.is_final()  # the winner's, once all is chosen, are runs like any other
    device = resolve_device(cfg.device)
    deterministic(device)
    threads = set_threads(cfg.threads)
    keep_memory()

    state, run_id = None, None
    if cfg.resume is not None:
        state, saved_settings, run_id = checkpoint.load_state(Path(cfg.resume))
        in_search |= saved_settings["in_search"]  # a trial that is gone on with sees no test image either

    recorded = reproduce.recorded(cfg)
    in_search |= recorded is not None and recorded.in_search  # nor does one that is repeated

    data = instantiate(cfg.data)
    if in_search:
        data.lock_test("the trials of a search are compared on val; what they see cannot be the final test")
        if cfg.train_on_val:
            raise InputError("train_on_val=true leaves a search nothing to compare by: add train_on_val=false")
    data.on_test_read = functools.partial(test_set_log.record, Path(cfg.root), data.name, str(output))
    iolaus.require_same("the content of the data", data.digest)
    if cfg.train_on_val:
        data.join_val()
    augment = instantiate(cfg.augment)
    train_loader = data.loader("train", augment=augment, device=device)
    val_loader = None if cfg.train_on_val else data.loader("val", device=device)

    torch.manual_seed(cfg.seed)
    model = build.build(instantiate(cfg.model, _partial_=True, _convert_="all"), data.input_shape, data.num_classes)
    model = place(model, device)
    optimizer = loop.make_optimizer(instantiate(cfg.optimizer, _convert_="all"), model.parameters())
    precision = resolve_precision(cfg.precision, model)

    settings = config.settings(cfg)
    identity = {**settings, "in_search": in_search, "data_digest": data.digest}
    if state is not None:
        config.check_same_settings(identity, saved_settings, cfg.resume)

    params = config.params(settings, job.runtime.choices)
    tags = {
        "overrides": shlex.join(job.overrides.task),
        "output_dir": output,
        "resolved.device": device,
        "resolved.precision": precision,
        "resolved.threads": threads,
        "data_digest": data.digest,
        "in_search": in_search,
        **provenance.tags(config.project_root()),
    }
    provenance.write_record(output, params, tags)
    if recorded is not None:
        log.info("%s: %s", recorded.origin, shlex.join(job.overrides.task))
        for difference in recorded.differences(params, tags):
            log.warning("not as in %s: %s", recorded.origin, difference)
    with (
        instantiate(cfg.tracking).run(params, tags, run_id, iolaus.current_trial()) as run,
        Progress(cfg.epochs, len(train_loader), state.epoch if state else 0) as progress,
    ):
        run.log_data(data.name, data.train.images.numpy(), data.train.labels.numpy(), data.digest, data.root)
        if state is not None:
            run.log_epochs(state.history)  # it may have ended between saving an epoch and recording it

        def on_epoch(state: loop.State) -> None:
            checkpoint.save_state(output / "checkpoint.pt", state, identity, run.id)
            run.log_epochs(state.history)
            progress.on_epoch(state)
            if (objective := objectives(cfg)[0]) in state.history[-1]:  # not one of the whole run, such as fit_s
                iolaus.report(state.epoch, state.history[-1][objective])

        if gc.get_freeze_count() == 0:  # once in a process: a second run's would keep what the first has left in cycles
            gc.freeze()  # else each of the next collections would go through all that was imported, for 0.3 s
        gc.enable()
        try:
            state = loop.fit(
                model,
                train_loader,
                val_loader,
                optimizer,
                epochs=cfg.epochs,
                scheduler=instantiate(cfg.scheduler, _convert_="all"),
                seed=cfg.seed,
                precision=precision,
                label_smoothing=cfg.loss.label_smoothing,
                patience=cfg.early_stopping.patience,
                monitor=monitored(cfg),
                state=state,
                on_batch=progress.on_batch,
                on_epoch=on_epoch,
            )
        except KeyboardInterrupt:
            if (output / "checkpoint.pt").exists() and iolaus.current_trial() is None:  # a search tries it again
                log.info("to go on:  %s", command_line.resume_command(job.overrides.task, output / "checkpoint.pt"))
            raise

        # From here on the model has the kept weights, those of the best epoch.
        facts = {"fit_s": state.fit_s, "params": build.num_parameters(model), "images_per_s": state.images_per_s}
        counts = {} if cfg.train_on_val else {"val": len(data.val.labels)}
        classifier = checkpoint.Classifier.of(model, settings["model"], data)
        checkpoint.save_model(output / "model.pt", classifier)
        OmegaConf.save(OmegaConf.create(settings), output / "config.yaml")
        pictures = []
        if not in_search:
            from iolaus.classifier.run import figures  # matplotlib: the first batch need not wait for it

            logits, labels = loop.infer(model, data.loader("test", device=device), precision=precision)
            facts |= {"test/loss": metrics.loss(logits, labels), "test/accuracy": metrics.accuracy(logits, labels)}
            counts |= {"test": len(labels)}
            pictures = figures.of_run(output, data, state, logits, labels)
        results = {**state.best, **facts, "best_epoch": state.best_epoch}
        iolaus.log_results(results)
        (output / "metrics.json").write_text(json.dumps({**results, "history": state.history}, indent=2))
        log.info("%s", summary(results, state.epoch, counts))

        for path in [output / "model.pt", output / "config.yaml", output / "metrics.json", *pictures]:
            run.log_file(path)
        if not in_search:
            metadata = {"classes": data.classes, "digit_box": data.digit_box}
            run.log_model(classifier.pixels_to_logits(), data.val.images[:2].float() / 255, metadata)
        best = {f"best/{name}": value for name, value in state.best.items() if name.startswith(("train/", "val/"))}
        run.log_metrics({**best, "best/epoch": state.best_epoch, **facts})

    if recorded is not None:
        log.info("%s", recorded.compared(results))
    for name, value in excess(cfg, results).items():
        iolaus.constrain(name, value)
    log.info("model, figures, metrics: %s", output)
    values = [results[name] for name in objectives(cfg)] if val_loader else [results["test/accuracy"]]
    return values if len(values) > 1 else values[0]


if __name__ == "__main__":
    command_line.report_mistakes()
    sys.argv[1:] = command_line.expand_resume(sys.argv[1:])
    if any(argument.startswith(("from_run=", "from_trial=")) for argument in sys.argv):
        from iolaus.classifier.run import reproduce  # may import MLflow or Optuna

        sys.argv[1:] = reproduce.expand(sys.argv[1:])
    main()
    skip_teardown()
