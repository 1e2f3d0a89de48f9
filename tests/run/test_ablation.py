import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import ROOT, Program
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from iolaus.classifier.run import ablation, config
from iolaus.compare import variants
from iolaus.errors import InputError
from iolaus.search_space.overrides import replace_overrides
from iolaus.study import attributes
from iolaus.study.storage import open_storage


class Composed:
    """What `ablation.variants` asks of a composer, without a sweep."""

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        return compose("config", list(overrides), return_hydra_config=True)

    def options(self, group: str) -> list[str]:
        return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def variants_of(
    *overrides: str, listed: Callable[..., dict[str, list[str]]] = ablation.variants
) -> dict[str, list[str]]:
    config.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf")):
        composer = Composed()
        found = listed(composer.compose(overrides), composer)
        for changed in found.values():  # each exists
            composer.compose(replace_overrides(overrides, changed))
    return found


def test_each_named_layer_is_removed_and_each_kind_swapped() -> None:
    found = variants_of("experiment=udacity")
    layers = ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "fc1", "relu3", "dropout1", "fc2", "relu4",
              "dropout2", "fc3", "relu5"]  # fmt: skip
    assert [found[f"without {name}"] for name in layers] == [[f"model.layers.{name}=null"] for name in layers]
    assert found["without dropout"] == ["model.layers.dropout1=null", "model.layers.dropout2=null"]
    assert found["AvgPool2d for MaxPool2d"] == [f"model.layers.pool{i}._target_=torch.nn.AvgPool2d" for i in (1, 2)]
    assert len(found["GELU for ReLU"]) == 5


def test_only_the_removals_may_be_asked_for() -> None:
    found = variants_of("experiment=udacity", listed=ablation.removals)
    assert len(found) == 15  # 14 layers, and both dropouts at once
    assert all(name.startswith("without ") for name in found)


def test_a_block_of_convolutions_goes_as_a_whole() -> None:
    found = variants_of("model=cnn", "model.convs=[1,2,3]", listed=ablation.removals)
    assert found["without model.channels[1]"] == ["model.channels=[16,64]", "model.convs=[1,3]"]
    assert found["without model.hidden_sizes[0]"] == ["model.hidden_sizes=[]"]


def test_training_is_varied_too() -> None:
    found = variants_of("experiment=udacity")
    assert found["augment affine"] == ["augment=affine"]
    assert found["scheduler one_cycle"] == ["scheduler=one_cycle"]
    assert "scheduler constant" not in found
    assert found["lr 0.003"] == ["optimizer.lr=0.003"]
    assert found["5 epochs"] == ["epochs=5"]
    assert found["20 epochs"] == ["epochs=20"]
    assert found["with normalisation"] == ["data.normalize=true"]
    assert found["optimizer adamw, lr 0.001"] == ["optimizer=adamw", "optimizer.lr=0.001"]
    assert found["optimizer sgd, lr 0.02"] == ["optimizer=sgd", "optimizer.lr=0.02"]  # a fifth of its usual rate, too


def test_what_a_run_has_is_removed_and_what_it_has_not_is_not() -> None:
    found = variants_of("model=cnn_dropout", "augment=affine", "loss.label_smoothing=0.1")
    assert found["without dropout"] == ["model.dropout=0.0"]
    assert found["without batch_norm"] == ["model.batch_norm=false"]
    assert found["without model.channels[1]"] == ["model.channels=[16,64]"]
    assert found["without model.hidden_sizes[0]"] == ["model.hidden_sizes=[]"]
    assert found["kernel_size 5"] == ["model.kernel_size=5"]
    assert found["without augmentation"] == ["augment=none"]
    assert found["without label smoothing"] == ["loss.label_smoothing=0.0"]
    plain = variants_of("model=mlp", "epochs=1")
    assert "without dropout" not in plain
    assert "without label smoothing" not in plain
    assert [name for name in plain if name.endswith("epochs")] == ["2 epochs"]


def test_a_model_with_nothing_to_remove_is_a_mistake() -> None:
    with pytest.raises(InputError, match="this experiment's model has nothing to remove"):
        variants_of("model=mlp", "model.hidden_sizes=[]")


COMMAND = ["-m", "hparams_search=ablation", "hydra.sweeper.n_jobs=1", "hydra.sweeper.seeds=2", "epochs=1"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only some of the variants: all of them take a minute."""
    whole = ablation.variants

    def some(*arguments: Any) -> dict[str, list[str]]:
        found = whole(*arguments)
        return {name: found[name] for name in ("without model.hidden_sizes[0]", "optimizer sgd, lr 0.1", "2 epochs")}

    monkeypatch.setattr(ablation, "variants", some)


@pytest.mark.usefixtures("few")
def test_an_ablation_says_what_each_component_is_worth_paired_by_seed(program: Program, tmp_path: Path) -> None:
    done = program(*COMMAND, "hydra.sweeper.study_name=a", f"hydra.sweep.dir={tmp_path}/a")
    assert done.code == 0, done.err
    study = optuna.load_study(study_name="a", storage=open_storage(f"{tmp_path}/a/journal.log"))
    assert sorted((t.params["setting"], t.params["seed"]) for t in study.trials) == [
        (setting, seed) for setting in range(4) for seed in (0, 1)
    ]
    found = study.user_attrs[attributes.COMPARISON_RESULT]
    values = {(t.params["setting"], t.params["seed"]): t.value for t in study.trials}
    sgd = next(row for row in found["rows"] if row["name"].startswith("optimizer sgd"))
    assert sgd["difference"] == pytest.approx(sum(values[2, seed] - values[0, seed] for seed in (0, 1)) / 2)
    assert sgd["params_ratio"] == 1
    less = next(row for row in found["rows"] if row["name"].startswith("without"))
    assert less["params_ratio"] < 1
    differences = [row["difference"] for row in found["rows"]]
    assert differences == sorted(differences)
    for name in ("as it is", "2 epochs", "without model.hidden_sizes[0]"):
        assert any(line.startswith(name) for line in done.out.splitlines())
    page = (tmp_path / "a" / "report.html").read_text()
    assert "What each setting is worth" in page
    assert (tmp_path / "a" / "report" / "effects.png").exists()
    assert not (tmp_path / "test_looks.jsonl").exists()

    again = program(*COMMAND, "hydra.sweeper.study_name=a", f"hydra.sweep.dir={tmp_path}/a")
    assert "8 of 8 trials finished; 0 workers" in again.out


def settings_in(output: str) -> dict[str, str]:
    """The overrides of each setting that a dry run shows, by name."""
    line = r"^ +(?:\d+\.\d s|cannot run \(.*\):)  ([^:]+): (.*)$"
    return dict(re.findall(line, output, flags=re.MULTILINE))


@pytest.mark.usefixtures("few")
def test_a_dry_run_lists_the_settings_and_leaves_nothing(program: Program, tmp_path: Path) -> None:
    done = program(*COMMAND, "hydra.sweeper.dry_run=true", f"hydra.sweep.dir={tmp_path}/a")
    assert done.code == 0
    assert "epochs=2" in settings_in(done.out)["2 epochs"].split()
    assert re.search(r"^about 0:00:\d\d \(h:mm:ss\) for the 8 runs that are left$", done.out, flags=re.MULTILINE)
    assert not (tmp_path / "a").exists()


LINEAR = 'hydra.sweeper.variants={linear:["model.hidden_sizes=[]"]}'
OWN = 'hydra.sweeper.variants={linear:["model.hidden_sizes=[]"],by sgd:["optimizer=sgd","optimizer.lr=0.1"]}'


def test_settings_may_be_listed_in_the_command(program: Program, tmp_path: Path) -> None:
    done = program(*COMMAND, OWN, "hydra.sweeper.study_name=a", f"hydra.sweep.dir={tmp_path}/a")
    assert done.code == 0, done.err
    study = optuna.load_study(study_name="a", storage=open_storage(f"{tmp_path}/a/journal.log"))
    found = study.user_attrs[attributes.COMPARISON_RESULT]
    assert {row["name"] for row in found["rows"]} == {"linear", "by sgd"}
    linear = next(row for row in found["rows"] if row["name"] == "linear")
    assert linear["params"] == 64 * 10 + 10


def test_a_dry_run_knows_which_runs_are_there_already(program: Program, tmp_path: Path) -> None:
    study = ["hydra.sweeper.study_name=a", f"hydra.sweep.dir={tmp_path}/a"]
    assert program(*COMMAND, LINEAR, *study).code == 0
    done = program(*COMMAND, OWN, *study, "hydra.sweeper.dry_run=true")
    assert "optimizer.lr=0.1" in settings_in(done.out)["by sgd"]
    assert "for the 2 runs that are left" in done.out


def test_what_a_function_lists_twice_runs_once(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = {"short": ["epochs=1"], "2 epochs": ["epochs=2"], "again": ["epochs=2"]}
    monkeypatch.setattr(ablation, "variants", lambda *_: twice)
    done = program(*COMMAND, "hydra.sweeper.dry_run=true")
    assert list(settings_in(done.out)) == ["as it is", "2 epochs"]
    for name, other in (("short", "as it is"), ("again", "2 epochs")):
        assert f"«{name}» is left out, it cannot be compared: it duplicates «{other}»" in done.out + done.err


def test_a_group_that_changes_others_may_be_listed(program: Program) -> None:
    found = dry(program, 'hydra.sweeper.variants={other:["experiment=tiny_cnn","model=cnn","train_on_val=false"]}')
    assert {"experiment=tiny_cnn", "model=cnn"} < set(found["other"].split())


def test_who_asks_for_more_variants_later_goes_on_with_the_same_study(program: Program) -> None:
    def names(function: str) -> tuple[str, list[str]]:
        done = program(
            *COMMAND, "hydra.sweeper.dry_run=true", f"hydra.sweeper.variants=iolaus.classifier.run.ablation.{function}"
        )
        assert done.code == 0, done.err
        first = next(line for line in done.out.splitlines() if line.startswith("study "))
        return first.partition(": ")[0], list(settings_in(done.out))

    (study, removals), (other, all_of_them) = names("removals"), names("variants")
    assert study == other
    assert len(removals) == 3  # as it is, and without each hidden layer
    assert set(removals) < set(all_of_them)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=best_mlp"], "leaves a search nothing to compare by: add train_on_val=false"),
        (["optimizer.lr=interval(0.001,0.01)"], "compares settings as they are: optimizer.lr cannot be a range"),
        (["hydra.sweeper.timeout_s=60"], "hydra.sweeper.timeout_s and hydra.sweeper.variants are mutually exclusive"),
        (["hydra/sweeper/finals=seeds"], "hydra.sweeper.finals and hydra.sweeper.variants are mutually exclusive"),
        (["hydra.sweeper.seeds=1"], "hydra.sweeper.seeds must be at least 2"),
        (["hydra.sweeper.variants=iolaus.no_such.function"], "hydra.sweeper.variants cannot be used: "),
        (["hydra.sweeper.variants=['epochs=2']"], "must be a function's name, or lists of overrides by name such as"),
        (["hydra.sweeper.variants={}"], "must be a function's name, or lists of overrides by name such as"),
        (
            ["hydra.sweeper.variants={a:'epochs=2'}"],
            "«a» must be a list of overrides such as ['epochs=10'], but got ep",
        ),
        (["hydra.sweeper.variants={a:[]}"], "«a» must be a list of overrides such as ['epochs=10'], but got []"),
        (["hydra.sweeper.variants={a:[epochs]}"], "«a» must be overrides such as epochs=10 or ~key, but got epochs"),
        (
            ["hydra.sweeper.variants={1:['epochs=2']}"],
            "a name in hydra.sweeper.variants must be a text that is no number",
        ),
        (
            ["hydra.sweeper.variants={as it is:['epochs=2']}"],
            "must be another than that of the command itself, but got",
        ),
        (["hydra.sweeper.variants={a:['model.width=2']}"], "hydra.sweeper.variants: «a» cannot be compared: Could not"),
        (
            ["hydra.sweeper.variants={a:['seed=7']}"],
            "«a» cannot be compared: it duplicates «as it is» apart from its seed",
        ),
        (
            ["hydra.sweeper.variants={a:['epochs=9'],b:['epochs=9']}"],
            "«b» cannot be compared: it duplicates «a» apart from its seed",
        ),
        (
            ["hydra.sweeper.variants=logging.debug"],
            "must be a function's name, or lists of overrides by name",
        ),
        (["model=mlp", "model.hidden_sizes=[]"], "this experiment's model has nothing to remove"),
    ],
)
def test_an_ablation_that_cannot_be_is_one_line(program: Program, overrides: list[str], message: str) -> None:
    done = program("-m", "hparams_search=ablation", *overrides)
    assert done.code == 1
    assert message in done.message


def dry(program: Program, *overrides: str) -> dict[str, str]:
    """The overrides of each setting, from a dry run."""
    done = program("-m", "hparams_search=ablation", "hydra.sweeper.dry_run=true", *overrides)
    assert done.code == 0, done.err
    return settings_in(done.out)


def test_another_option_of_a_group_comes_without_the_keys_that_only_the_first_had(program: Program) -> None:
    found = dry(program, "experiment=speedrun", "model=fast")
    (sgd,) = [rest for name, rest in found.items() if name.startswith("optimizer sgd")]
    assert "~optimizer.betas" in sgd.split()
    assert "~scheduler.pct_start" in found["scheduler constant"].split()
    given = dry(program, "model=mlp", "augment=affine", "augment.degrees=5", "optimizer.betas=[0.8,0.99]")
    assert "augment.degrees=5" in given["as it is"]
    assert "augment.degrees=5" not in given["without augmentation"]
    (sgd,) = [rest for name, rest in given.items() if name.startswith("optimizer sgd")]
    assert "optimizer.betas" not in sgd


def row(name: str, values: list[float], failed: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "values": values, "seeds": list(range(len(values))), "failed": failed}
    return found | {"mean": 0.9, "interval": 0.01, "n": len(values), "params": 10.0, "fit_s": 1.0}


def test_the_table_marks_what_cannot_be_told_from_zero_and_what_failed() -> None:
    told = {
        "difference": -0.05,
        "difference_interval": 0.01,
        "significant": True,
        "params_ratio": 0.5,
        "fit_s_ratio": 2.0,
    }
    unclear = {**told, "difference": 0.001, "significant": False}
    rows = [row("a", [1, 2]) | told, row("b", [1, 2], failed=1) | unclear, row("c", [], failed=3)]
    found = {"objective": "val/accuracy", "seeds": [0, 1], "base": row("as it is", [1, 2]), "rows": rows}
    head, base, *cells = variants.table(found)
    assert base[0] == "as it is"
    assert cells[0] == ["a", "90.00 ± 1.00 % (n = 2)", "-5.00 ± 1.00 %", "", "0.50 times", "2.00 times"]
    assert cells[1][0] == "b (1 failed)"
    assert cells[1][3] == "not significant"
    assert cells[2][:2] == ["c", "failed"]
    assert len(head) == len(cells[0])
