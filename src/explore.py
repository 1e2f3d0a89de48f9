"""Show the inputs before and after preprocessing: ``python src/explore.py data=mnist model=mlp``."""

import logging
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS, instantiate
from omegaconf import DictConfig

from iolaus import command_line
from iolaus.classifier.run import config
from iolaus.system.exit import skip_teardown

log = logging.getLogger(__name__)
config.register()


@hydra.main(config_path="../conf", config_name="config", execution_whitelist=UNSAFE_DISABLE_EXECUTION_CHECKS)
def main(cfg: DictConfig) -> None:
    """Describe the data set and its preprocessing, and draw samples raw and as they reach the model."""
    config.check(cfg)

    import torch

    from iolaus.classifier.models import build
    from iolaus.classifier.run import inputs, pictures

    data = instantiate(cfg.data)
    torch.manual_seed(cfg.seed)
    model = build.build(instantiate(cfg.model, _partial_=True, _convert_="all"), data.input_shape, data.num_classes)
    loader = data.loader("train", augment=instantiate(cfg.augment))
    log.info("%s", inputs.describe(data, loader, model))
    output = Path(HydraConfig.get().runtime.output_dir)
    log.info("picture: %s", pictures.save(inputs.before_and_after(data, loader, model), output / "inputs.png"))


if __name__ == "__main__":
    command_line.report_mistakes()
    main()
    skip_teardown()
