"""A step; a function that learns anew from what it is given stands for the CUDA graph."""

import copy
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from iolaus.classifier.models import cnn, mlp
from iolaus.classifier.training import step
from iolaus.classifier.training.step import TrainStep
from iolaus.errors import InputError


class Replayed:
    """As `CapturedGraph`, which needs a GPU: it learns from what was copied into the inputs that it keeps."""

    made = 0

    def __init__(self, function: Callable[..., Tensor], parameters: list[nn.Parameter], *inputs: Tensor) -> None:
        type(self).made += 1
        self.function, self.inputs = function, [tensor.clone() for tensor in inputs]

    def __call__(self, *inputs: Tensor) -> Tensor:
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        return self.function(*self.inputs)


def uncapturable(*_: object) -> None:
    raise RuntimeError("operation not permitted when stream is capturing\nmore")


def capturing(model: nn.Module, monkeypatch: pytest.MonkeyPatch, by: Callable[..., object]) -> TrainStep:
    """A step that takes the CPU for a CUDA device."""
    monkeypatch.setattr(step, "CapturedGraph", by)
    taken = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), label_smoothing=0.1)
    taken.captures = True
    return taken


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    return [(torch.randn(size, 1, 8, 8), torch.randint(10, (size,))) for size in sizes]


def test_a_step_tells_loss_and_correct_predictions_of_before_it() -> None:
    model = mlp.MLP((1, 8, 8), 10, [16])
    before = copy.deepcopy(model)
    images, labels = batches(32)[0]
    loss, correct = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1))(images, labels).tolist()
    logits = before(images)
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item())
    assert correct == (logits.argmax(1) == labels).sum()
    assert nn.functional.cross_entropy(model(images), labels) < loss


def test_nothing_is_captured_on_the_cpu() -> None:
    model = mlp.MLP((1, 8, 8), 10, [16])
    assert not TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1)).captures


def test_each_shape_is_captured_once_at_its_second_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cnn.CNN((1, 8, 8), 10, channels=[4], hidden_sizes=[])
    eager = copy.deepcopy(model)
    monkeypatch.setattr(Replayed, "made", 0)
    taken = capturing(model, monkeypatch, Replayed)
    plain = TrainStep(eager, torch.optim.SGD(eager.parameters(), lr=0.1), label_smoothing=0.1)
    counts = []
    for images, labels in batches(8, 8, 8, 3, 8, 3, 3):
        assert torch.equal(taken(images, labels), plain(images, labels))
        counts.append(Replayed.made)
    assert counts == [0, 1, 1, 1, 1, 2, 2]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), eager.parameters(), strict=True))


def test_a_network_that_cannot_be_captured_learns_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = mlp.MLP((1, 8, 8), 10, [16])
    taken = capturing(model, monkeypatch, uncapturable)
    with caplog.at_level("INFO"):
        losses = [taken(*batch)[0].item() for batch in batches(8, 8, 8) for _ in range(9)]
    assert losses[-1] < losses[0]
    assert caplog.messages == [
        "slower: no CUDA graph can be made of this model (operation not permitted when stream is capturing)"
    ]


def test_what_a_capture_that_fails_has_computed_is_gone_before_the_step_is_taken_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Fails(nn.Module):
        """In its second forward pass, after it has computed something."""

        calls, hidden = 0, None

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 3:
                assert self.hidden is not None
                assert self.hidden() is None
            hidden = images * 2
            if self.calls == 2:
                self.hidden = weakref.ref(hidden)
                raise RuntimeError
            return hidden

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Fails())
    taken = capturing(model, monkeypatch, lambda function, _, *inputs: function(*inputs))
    for batch in batches(8, 8):
        taken(*batch)
    assert model[2].calls == 3
    assert not taken.captures


class Drops(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if torch.rand(()) < 0.5 else 2 * images


class Doubles(nn.Module):
    capturable = True

    def forward(self, images: Tensor) -> Tensor:
        return 2 * images


def test_what_may_decide_something_in_python_is_not_captured() -> None:
    network = cnn.CNN((1, 8, 8), 10)
    assert step.uncapturable(network) == []
    assert step.uncapturable(nn.Sequential(network, Doubles())) == []
    assert step.uncapturable(nn.Sequential(network, Drops(), Drops())) == ["Drops"]
    assert step.uncapturable(nn.Sequential(v2.RandomHorizontalFlip(), network)) == ["RandomHorizontalFlip"]
    network[0].register_forward_hook(lambda module, inputs, output: output * float(torch.rand(())))
    assert step.uncapturable(network) == ["Conv2d"]


def test_batch_norm_over_one_image_is_refused_with_what_to_do() -> None:
    model = mlp.MLP((1, 8, 8), 10, hidden_sizes=[8], batch_norm=True)
    with pytest.raises(InputError, match=r"^data.batch_size must be at least 2 for this model"):
        TrainStep(model, torch.optim.SGD(model.parameters()))(*batches(1)[0])
