import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
from torch import Tensor, nn

from iolaus.classifier.training import loop, metrics

COUNT, CLASSES = 1003, 7  # 64, 100 and 1000 do not divide it


@pytest.fixture
def answers() -> tuple[Tensor, Tensor]:
    """Logits that are right more often than by chance, and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (COUNT,), generator=generator)
    logits = torch.randn(COUNT, CLASSES, generator=generator)
    logits[torch.arange(COUNT), labels] += 1.5
    return logits, labels


def test_accuracy_is_that_of_scikit_learn(answers: tuple[Tensor, Tensor]) -> None:
    logits, labels = answers

    assert metrics.accuracy(logits, labels) == sklearn.metrics.accuracy_score(labels, logits.argmax(1))


def test_loss_is_that_of_scikit_learn(answers: tuple[Tensor, Tensor]) -> None:
    logits, labels = answers
    probs = logits.double().softmax(1).numpy()

    assert metrics.loss(logits, labels) == pytest.approx(sklearn.metrics.log_loss(labels, probs), abs=1e-9)


def test_loss_of_indifference_is_the_logarithm_of_the_class_count() -> None:
    assert metrics.loss(torch.zeros(3, 10), torch.tensor([0, 5, 9])) == pytest.approx(np.log(10))


def test_the_confusion_matrix_is_that_of_scikit_learn(answers: tuple[Tensor, Tensor]) -> None:
    logits, labels = answers
    matrix = metrics.confusion_matrix(logits, labels)

    assert matrix.dtype == torch.int64
    assert (matrix.numpy() == sklearn.metrics.confusion_matrix(labels, logits.argmax(1))).all()


def test_the_confusion_matrix_has_labels_in_rows_and_predictions_in_columns() -> None:
    matrix = metrics.confusion_matrix(torch.eye(3)[[1, 1, 2]], torch.tensor([0, 0, 2]))

    assert matrix.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_per_class_accuracy_is_the_recall_of_scikit_learn(answers: tuple[Tensor, Tensor]) -> None:
    logits, labels = answers
    expected = sklearn.metrics.recall_score(labels, logits.argmax(1), average=None)

    assert metrics.per_class_accuracy(logits, labels).tolist() == pytest.approx(expected.tolist())


def test_per_class_accuracy_of_an_absent_label_is_nan() -> None:
    accuracies = metrics.per_class_accuracy(torch.eye(3)[[0, 1, 2]], torch.tensor([0, 0, 2]))

    assert accuracies.tolist() == pytest.approx([0.5, float("nan"), 1.0], nan_ok=True)


@pytest.mark.parametrize("batch_size", [64, 100, 1000])
def test_figures_do_not_depend_on_the_batch_size(answers: tuple[Tensor, Tensor], batch_size: int) -> None:
    batches = list(zip(*(part.split(batch_size) for part in answers), strict=True))
    logits, labels = loop.infer(nn.Identity(), batches)

    assert len(batches[-1][1]) < batch_size
    assert metrics.accuracy(logits, labels) == metrics.accuracy(*answers)
    assert metrics.loss(logits, labels) == metrics.loss(*answers)


def test_a_bad_small_last_batch_does_not_weigh_like_a_full_one() -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    logits = torch.eye(2)[torch.ones(100, dtype=torch.int64)]
    logits[:62] = torch.eye(2)[0]  # 62 of 100 are right; of the two batches' shares the mean is 0.48
    batches = list(zip(logits.split(64), labels.split(64), strict=True))
    mean_of_batches = sum(metrics.accuracy(*batch) for batch in batches) / 2

    assert metrics.accuracy(*loop.infer(nn.Identity(), batches)) == 0.62
    assert mean_of_batches == pytest.approx(0.484, abs=1e-3)


@pytest.mark.parametrize(("right", "count"), [(95, 100), (9920, 10000), (5, 10), (0, 7), (7, 7)])
def test_the_interval_is_the_wilson_interval_of_scipy(right: int, count: int) -> None:
    expected = scipy.stats.binomtest(right, count).proportion_ci(0.95, method="wilson")

    assert metrics.accuracy_interval(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_the_interval_of_95_right_in_100_is_the_known_one() -> None:
    assert metrics.accuracy_interval(0.95, 100) == pytest.approx((0.8882, 0.9785), abs=1e-4)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_the_interval_of_all_or_none_stays_in_0_to_1_and_has_a_width(accuracy: float) -> None:
    low, high = metrics.accuracy_interval(accuracy, 10)

    assert 0 <= low < high <= 1


def test_the_interval_holds_the_truth_95_times_in_100() -> None:
    right = np.random.default_rng(0).binomial(200, 0.97, 4000)
    held = [low <= 0.97 <= high for low, high in (metrics.accuracy_interval(count / 200, 200) for count in right)]

    assert 0.93 < np.mean(held) < 0.975


def test_mistakes_are_the_wrong_answers_the_most_confident_first(answers: tuple[Tensor, Tensor]) -> None:
    logits, labels = answers
    wrong = metrics.mistakes(logits, labels, most=COUNT)
    confidence = logits.softmax(1).max(1).values[wrong]

    assert sorted(wrong.tolist()) == (logits.argmax(1) != labels).nonzero().flatten().tolist()
    assert (confidence.diff() <= 0).all()


def test_only_so_many_mistakes_are_given_as_asked(answers: tuple[Tensor, Tensor]) -> None:
    assert metrics.mistakes(*answers, most=5).tolist() == metrics.mistakes(*answers, most=COUNT)[:5].tolist()


def test_a_model_that_is_always_right_has_no_mistakes() -> None:
    assert metrics.mistakes(torch.eye(4), torch.arange(4)).shape == (0,)


def test_mistakes_of_very_confident_models_are_in_order() -> None:
    logits = torch.tensor([[20.0, 0.0], [30.0, 0.0], [25.0, 0.0]])

    assert metrics.mistakes(logits, torch.ones(3, dtype=torch.int64)).tolist() == [1, 2, 0]
