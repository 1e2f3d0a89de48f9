"""Classify images: ``python src/predict.py digit.png photos/*.jpg [--model PATH_OR_MLFLOW_URI]``."""

import argparse
import os
import sys
from pathlib import Path

from iolaus import command_line
from iolaus.classifier.run import config
from iolaus.errors import InputError
from iolaus.system.exit import skip_teardown


def main() -> None:
    """Print file, class and probability of each image, and draw all images on one sheet."""
    parser = argparse.ArgumentParser(description="Classify images.")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image files: photos or drawings of any size")
    parser.add_argument(
        "--model",
        metavar="PATH_OR_MLFLOW_URI",
        help="a model.pt, a run's folder, runs:/<id>/model or models:/<name>/<version>; default: the champion of the "
        "last search that had one, else the newest in outputs",
    )
    parser.add_argument("--data", metavar="NAME", help="use the champion of this data set")
    parser.add_argument(
        "--sheet",
        metavar="FILE",
        type=Path,
        default=Path("predictions.png"),
        help="contact sheet (default: %(default)s)",
    )
    parser.add_argument(
        "--trust",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module of your own whose functions a model may call",
    )
    arguments = parser.parse_args()

    from iolaus.classifier.run import pictures
    from iolaus.classifier.run.predictor import Predictor, champion, newest_model

    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{config.project_root()}/mlflow.db")
    model = arguments.model or champion(tracking_uri, arguments.data)
    if model is None:
        model = newest_model(config.project_root() / "outputs")
        print(f"model: {model}, the newest (name another with --model)", file=sys.stderr)
    elif arguments.model is None:
        print(f"model: {model} (name another with --model)", file=sys.stderr)
    predictor = Predictor.load(model, arguments.trust, tracking_uri)
    height, width = predictor.input_shape[1:]
    print(f"its classes are {', '.join(predictor.classes)}, its images have {height}x{width} pixels", file=sys.stderr)
    predictions = predictor.images(arguments.paths)
    for path, name, prob in predictions:
        print(f"{path}\t{name}\t{prob:.1%}")
    if predictions.paths:
        captions = [f"{name}  {prob:.0%}\n{pictures.short(Path(path).name, 16)}" for path, name, prob in predictions]
        title = f"as the model saw them ({model})"
        try:
            pictures.save(pictures.sample_grid(predictions.pixels, captions, title=title), arguments.sheet)
        except OSError as error:
            raise InputError(f"the contact sheet cannot be written ({error}): name another with --sheet") from error
        print(f"contact sheet: {arguments.sheet}", file=sys.stderr)
    for reason in predictions.failures.values():
        print(f"error: {reason}", file=sys.stderr)
    code = 1 if predictions.failures else 0
    skip_teardown(code)
    sys.exit(code)


if __name__ == "__main__":
    command_line.report_mistakes()
    main()
