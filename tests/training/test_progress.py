import io
import logging
import re
import sys

import pytest

from iolaus.classifier.training import loop
from iolaus.classifier.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_a_terminal_shows_loss_accuracy_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with Progress(epochs=2, batches=3) as progress:
        progress.bar.mininterval = 0  # draws each batch
        for _ in range(3):
            progress.on_batch(0.5, 0.75, 64)
    drawn = screen.getvalue().split("\r")
    (half,) = [line for line in drawn if "50%" in line]
    assert re.match(r"epoch 1/2  50%\|.*\| 00:\d\d left, loss 0\.5000, accuracy 75\.00%, [\d,]+ images/s", half), drawn


def test_the_bar_goes_on_where_an_interrupted_run_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with Progress(epochs=4, batches=5, done=2):
        pass
    assert "epoch 3/4  50%" in screen.getvalue()


def test_without_a_terminal_nothing_but_lines_is_written(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = loop.State(
        epoch=1, best_epoch=1, history=[
            {"train/loss": 1.0, "train/accuracy": 0.5, "val/loss": 0.8, "val/accuracy": 0.6, "lr": 0.1, "epoch_s": 2.0}
        ], images=100, train_s=2.0,
    )  # fmt: skip
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])  # without what earlier runs left
    with caplog.at_level("INFO"), Progress(epochs=3, batches=3) as progress:
        progress.on_batch(0.5, 0.75, 64)
        progress.on_epoch(state)
    assert capsys.readouterr().err == ""
    assert "epoch 1/3: train loss 1.0000, accuracy 50.00 %; val loss 0.8000, accuracy 60.00 % (best)" in caplog.text
    assert "50 images/s, 0:00:04 left" in caplog.text
