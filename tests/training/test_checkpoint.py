import errno
import functools
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from iolaus.classifier.data.dataset import Data
from iolaus.classifier.models import cnn, mlp
from iolaus.classifier.training import checkpoint, loop
from iolaus.errors import InputError

SPEC = {"_target_": "iolaus.classifier.models.CNN", "channels": [4, 8], "hidden_sizes": [16], "dropout": 0.1}


@pytest.fixture
def classifier(digits: Data) -> checkpoint.Classifier:
    model = cnn.CNN(digits.input_shape, digits.num_classes, channels=[4, 8], hidden_sizes=[16], dropout=0.1)
    model(torch.randn(8, *digits.input_shape))  # moves the batch norms' statistics
    return checkpoint.Classifier.of(model, SPEC, digits)


def test_a_model_file_gives_bitwise_the_same_logits_back(
    tmp_path: Path, classifier: checkpoint.Classifier, digits: Data
) -> None:
    checkpoint.save_model(tmp_path / "model.pt", classifier)
    again = checkpoint.load_model(tmp_path / "model.pt")
    expected, _ = loop.infer(classifier.model, digits.loader("val"))
    got, _ = loop.infer(again.model, digits.loader("val"))
    assert torch.equal(got, expected)
    assert (again.classes, again.mean, again.std) == (digits.classes, digits.mean, digits.std)
    assert (again.input_shape, again.digit_box) == ((1, 8, 8), 8)


def test_named_layers_and_torchvisions_models_are_rebuilt(tmp_path: Path, digits: Data) -> None:
    import torchvision

    from iolaus.classifier.models.layers import Layers

    layered = Layers((1, 8, 8), 10, {"conv": torch.nn.LazyConv2d(4, 3), "off": None, "fc": torch.nn.LazyLinear(8)})
    layers = {
        "conv": {"_target_": "torch.nn.LazyConv2d", "out_channels": 4, "kernel_size": 3},
        "off": None,
        "fc": {"_target_": "torch.nn.LazyLinear", "out_features": 8},
    }
    colour = torchvision.models.squeezenet1_1(num_classes=10)
    cases = [
        (layered, {"_target_": "iolaus.classifier.models.Layers", "layers": layers}, (1, 8, 8)),
        (colour, {"_target_": "torchvision.models.squeezenet1_1"}, (3, 32, 32)),
    ]
    for model, spec, shape in cases:
        saved = checkpoint.Classifier(model.eval(), spec, shape, digits.classes, [0.0], [1.0], None)
        checkpoint.save_model(tmp_path / "model.pt", saved)
        images = torch.randn(3, *shape)
        with torch.inference_mode():
            assert torch.equal(checkpoint.load_model(tmp_path / "model.pt").model(images), model(images))


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("evil-was-here",)


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_a_pickle_from_elsewhere_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    monkeypatch.chdir(tmp_path)
    write({"model": Evil()}, tmp_path / "model.pt")  # type: ignore[operator]
    with pytest.raises(InputError, match="pickled objects, which could run code"):
        checkpoint.load_model(tmp_path / "model.pt")
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("target", ["os.system", "subprocess.Popen", "builtins.eval", "torch.load"])
def test_a_model_file_cannot_call_what_is_not_a_module(tmp_path: Path, target: str, digits: Data) -> None:
    saved = checkpoint.Classifier(mlp.MLP((1, 8, 8), 10), {"_target_": target}, (1, 8, 8), digits.classes, [], [], 8)
    checkpoint.save_model(tmp_path / "model.pt", saved)
    with pytest.raises(InputError, match=f"the file asks to call {target}, which is not a torch.nn.Module"):
        checkpoint.load_model(tmp_path / "model.pt")


def test_a_function_of_the_users_is_called_when_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Data
) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from iolaus.classifier.models import MLP\n\n\ndef small(input_shape, num_classes):\n"
        "    return MLP(input_shape, num_classes, [4])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = mlp.MLP((1, 8, 8), 10, [4])
    saved = checkpoint.Classifier(model, {"_target_": "my_nets.small"}, (1, 8, 8), digits.classes, [0.0], [1.0], 8)
    checkpoint.save_model(tmp_path / "model.pt", saved)
    with pytest.raises(InputError, match="trust my_nets"):
        checkpoint.load_model(tmp_path / "model.pt")
    assert isinstance(checkpoint.load_model(tmp_path / "model.pt", trust=["my_nets"]).model, mlp.MLP)


def test_damaged_missing_and_foreign_files_are_told_apart(tmp_path: Path, classifier: checkpoint.Classifier) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(InputError, match="is not a file"):
        checkpoint.load_model(path)
    checkpoint.save_model(path, classifier)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load_model(path)
    checkpoint.save(path, {"format": "something else"})
    with pytest.raises(InputError, match="is not a model of Iolaus"):
        checkpoint.load_model(path)
    with pytest.raises(InputError, match=r"is not a checkpoint of Iolaus: give the path of a run's checkpoint.pt"):
        checkpoint.load_state(path)


@pytest.mark.parametrize(("number", "age"), [(1, "an earlier"), (99, "a later")])
@pytest.mark.parametrize(
    ("name", "kind", "read"),
    [("model.pt", "iolaus-model", checkpoint.load_model), ("checkpoint.pt", "iolaus-state", checkpoint.load_state)],
)
def test_a_file_of_another_version_says_so(
    tmp_path: Path, name: str, kind: str, read: Callable[[Path], object], number: int, age: str
) -> None:
    checkpoint.save(tmp_path / name, {"format": f"{kind}-{number}", "model": {"_target_": "iolaus.models.CNN"}})
    with pytest.raises(
        InputError, match=rf"{name} was made by {age} version of Iolaus: use that version, or train again"
    ):
        read(tmp_path / name)


def test_a_class_that_has_changed_since_is_named(tmp_path: Path, classifier: checkpoint.Classifier) -> None:
    classifier.spec = {**SPEC, "hidden_sizes": [17]}
    checkpoint.save_model(tmp_path / "model.pt", classifier)
    with pytest.raises(InputError, match=r"the weights in .* do not fit iolaus\.classifier\.models\.CNN: its code"):
        checkpoint.load_model(tmp_path / "model.pt")


def test_a_model_whose_argument_is_a_partial_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Data
) -> None:
    (tmp_path / "my_norms.py").write_text(
        "from torch import nn\n\n\nclass Normed(nn.Sequential):\n"
        "    def __init__(self, num_classes, norm):\n"
        "        super().__init__(nn.Flatten(), norm(64), nn.Linear(64, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from my_norms import Normed

    norm = {"_target_": "torch.nn.LayerNorm", "_partial_": True, "eps": 0.5}
    model = Normed(10, functools.partial(torch.nn.LayerNorm, eps=0.5))
    spec = {"_target_": "my_norms.Normed", "norm": norm}
    checkpoint.save_model(
        tmp_path / "model.pt", checkpoint.Classifier(model, spec, (1, 8, 8), digits.classes, [0.0], [1.0], 8)
    )
    assert checkpoint.load_model(tmp_path / "model.pt").model[1].eps == 0.5


def test_any_flipped_byte_is_either_harmless_or_an_error_of_one_kind(
    tmp_path: Path, classifier: checkpoint.Classifier
) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save_model(path, classifier)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), len(whole) // 200):
        harmed = bytearray(whole)
        harmed[place] ^= 0xFF
        path.write_bytes(harmed)
        try:
            checkpoint.load_model(path)
        except InputError:
            refused += 1
    assert refused > 20


def test_a_state_comes_back_as_it_was(tmp_path: Path, digits: Data) -> None:
    model = mlp.MLP((1, 8, 8), 10, [8])
    optimizer = torch.optim.Adam(model.parameters())
    state = loop.fit(model, digits.loader("train"), digits.loader("val"), optimizer, epochs=1)
    checkpoint.save_state(tmp_path / "checkpoint.pt", state, {"epochs": 1}, "run")
    again, settings, run_id = checkpoint.load_state(tmp_path / "checkpoint.pt")
    plain = [name for name in vars(state) if name not in ("weights", "best_weights", "optimizer")]
    assert {name: getattr(again, name) for name in plain} == {name: getattr(state, name) for name in plain}
    assert plain == ["epoch", "history", "best_epoch", "fit_s", "images", "train_s", "scheduler"]
    for name in ("weights", "best_weights"):
        assert all(torch.equal(getattr(again, name)[key], tensor) for key, tensor in getattr(state, name).items())
    assert again.optimizer["param_groups"] == state.optimizer["param_groups"]
    for key, moments in state.optimizer["state"].items():
        assert all(torch.equal(again.optimizer["state"][key][name], moment) for name, moment in moments.items())
    assert (settings, run_id) == ({"epochs": 1}, "run")


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    content = {"format": checkpoint.STATE_FORMAT, "epoch": 1}
    checkpoint.save(path, content)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.save(path, {"epoch": 2})
    assert caught.value.filename == str(path)
    assert checkpoint.load(path, checkpoint.STATE_FORMAT) == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs root: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full_loses_nothing(small_disk: Path) -> None:
    path = small_disk / "checkpoint.pt"
    checkpoint.save(path, {"format": checkpoint.STATE_FORMAT, "weights": torch.zeros(1000)})
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.save(path, {"weights": torch.zeros(1_000_000)})
    assert caught.value.errno == errno.ENOSPC
    assert len(checkpoint.load(path, checkpoint.STATE_FORMAT)["weights"]) == 1000
    assert list(small_disk.iterdir()) == [path]
