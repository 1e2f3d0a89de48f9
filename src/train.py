"""Train one classifier: ``python src/train.py model=cnn optimizer.lr=0.01``.

`main` reads from top to bottom as a run goes; the modules that it calls are in ``src/iolaus/``.
"""

import sys

import hydra
from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS, instantiate
from omegaconf import DictConfig

import iolaus
from iolaus import command_line
from iolaus.classifier.run import config
from iolaus.classifier.run.objective import monitored, objectives
from iolaus.system import process
from iolaus.system.exit import skip_teardown

config.register()
process.prepare(sys.argv)


# A configuration may name any code: whoever types the command has written it, and may use models of their own.
@hydra.main(config_path="../conf", config_name="config", execution_whitelist=UNSAFE_DISABLE_EXECUTION_CHECKS)
def main(cfg: DictConfig) -> float | list[float]:
    """Train a classifier, and return the value of the objective, or a list of them for several objectives."""
    config.check(cfg)
    # Imported only now: --help and a mistake in the configuration are answered without waiting for PyTorch.
    process.pause_collection()
    from iolaus.classifier.run.context import RunContext

    context = RunContext.of(cfg)
    import torch

    from iolaus.classifier.models import build
    from iolaus.classifier.run import results
    from iolaus.classifier.training import checkpoint, loop
    from iolaus.classifier.training.device import place, prepare_device, resolve_precision
    from iolaus.classifier.training.progress import Progress

    device, threads = prepare_device(cfg.device, cfg.threads)
    data = instantiate(cfg.data)
    context.guard(data)
    if cfg.train_on_val:
        data.join_val()
    train_loader = data.loader("train", augment=instantiate(cfg.augment), device=device)
    val_loader = None if cfg.train_on_val else data.loader("val", device=device)

    torch.manual_seed(cfg.seed)
    model = build.build(instantiate(cfg.model, _partial_=True, _convert_="all"), data.input_shape, data.num_classes)
    model = place(model, device)
    optimizer = loop.make_optimizer(instantiate(cfg.optimizer, _convert_="all"), model.parameters())
    precision = resolve_precision(cfg.precision, model)

    tags = context.begin(data.digest, device, precision, threads)
    tracked = instantiate(cfg.tracking).run(context.params, tags, context.run_id, iolaus.current_trial())
    with tracked as run, Progress(cfg.epochs, len(train_loader), len(context.history)) as progress:
        run.log_data(data.name, data.train.images.numpy(), data.train.labels.numpy(), data.digest, data.root)
        run.log_epochs(context.history)  # it may have ended between saving an epoch and recording it

        def on_epoch(state: loop.State) -> None:
            checkpoint.save_state(context.checkpoint, state, context.identity(data.digest), run.id)
            run.log_epochs(state.history)
            progress.on_epoch(state)
            if (objective := objectives(cfg)[0]) in state.history[-1]:  # not one of the whole run, such as fit_s
                iolaus.report(state.epoch, state.history[-1][objective])

        process.resume_collection()
        with context.interruption_explained():
            state = loop.fit(
                model, train_loader, val_loader, optimizer, epochs=cfg.epochs,
                scheduler=instantiate(cfg.scheduler, _convert_="all"), seed=cfg.seed, precision=precision,
                label_smoothing=cfg.loss.label_smoothing, patience=cfg.early_stopping.patience,
                monitor=monitored(cfg), state=context.state, on_batch=progress.on_batch, on_epoch=on_epoch,
            )  # fmt: skip

        classifier = checkpoint.Classifier.of(model, context.settings["model"], data)  # with the best epoch's weights
        files = results.save_model(context, classifier)
        test = None if context.in_search else loop.infer(model, data.loader("test", device=device), precision=precision)
        metrics = results.collect(state, classifier, test)
        files += results.save(context, data, state, metrics, test)
        results.track(run, context, metrics, files, classifier, data)
    return results.conclude(cfg, context, metrics)


if __name__ == "__main__":
    command_line.report_mistakes()
    sys.argv[1:] = command_line.expand_resume(sys.argv[1:])
    if any(argument.startswith(("from_run=", "from_trial=")) for argument in sys.argv):
        from iolaus.classifier.run import reproduce  # may import MLflow or Optuna

        sys.argv[1:] = reproduce.expand(sys.argv[1:])
    main()
    skip_teardown()
