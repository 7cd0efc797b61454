"""Leave-one-out retrieval against scikit-learn, cases worked by hand, and the options that change it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity
from support.subjects import digits_subject

from fgdemo.data import Hierarchy
from fgdemo.errors import UserError
from train.cli import build_parser, normalise_argv, split_namespace
from train.evaluation import retrieval
from train.evaluation.outcomes import unpack
from train.evaluation.retrieval import RetrievalOptions, lines, measure, rank

GROUPS = (RetrievalOptions,)


def average_precisions(embeddings: torch.Tensor, labels: np.ndarray) -> list[float]:
    similarity = cosine_similarity(embeddings.double().numpy())
    others = ~np.eye(len(labels), dtype=bool)
    return [
        average_precision_score(labels[others[i]] == labels[i], similarity[i, others[i]]) for i in range(len(labels))
    ]


def test_average_precision_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(90, 6, generator=generator)
    labels = torch.randint(0, 4, (2, 90), generator=generator)
    ranked = rank(embeddings, labels, (1,))
    for found, label in zip(ranked.precision, labels.numpy(), strict=True):
        np.testing.assert_allclose(found, average_precisions(embeddings, label), rtol=1e-6)


def test_ties_count_as_in_scikit_learn() -> None:
    """One-hot embeddings: similarities are 0 or 1, so every place is tied with others."""
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.eye(5)[torch.randint(0, 5, (60,), generator=generator)]
    labels = torch.randint(0, 3, (1, 60), generator=generator)
    found = rank(embeddings, labels, (1,)).precision[0]
    np.testing.assert_allclose(found, average_precisions(embeddings, labels[0].numpy()), rtol=1e-12)


def test_equal_pictures_tell_nothing() -> None:
    """A collapsed network: average precision is the share of relevant pictures, whatever their order."""
    labels = torch.tensor([[0, 1, 0, 1, 1]])
    ranked = rank(torch.ones(5, 3), labels, (1,))
    np.testing.assert_allclose(ranked.precision[0], [1 / 4, 2 / 4, 1 / 4, 2 / 4, 2 / 4])
    # Hits take equal pictures in their own order: 0 meets 1 first, everything else meets 0.
    assert ranked.hits[0, :, 0].tolist() == [False, False, True, False, False]


def test_by_hand() -> None:
    """Five pictures on an arc at 0, 10, 30, 70 and 100 degrees: a query's neighbours are the nearest angles."""
    angles = torch.tensor([0.0, 10.0, 30.0, 70.0, 100.0]).deg2rad()
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([1, 5, 0.1, 2, 3])[:, None]
    ranked = rank(embeddings, torch.tensor([[0, 1, 0, 1, 2]]), (1, 2, 3))
    # 0: 10, 30 -> second. 10: 0, 30, 70 -> third. 30: 10, 0 -> second. 70: 100, 30, 10 -> third. 100: alone.
    assert ranked.hits[0].tolist() == [
        [False, True, True],
        [False, False, True],
        [False, True, True],
        [False, False, True],
        [False, False, False],
    ]
    np.testing.assert_allclose(ranked.precision[0], [1 / 2, 1 / 3, 1 / 2, 1 / 3, 0])
    assert ranked.relevant[0].tolist() == [1, 1, 1, 1, 0]


def test_a_single_picture_finds_nothing() -> None:
    ranked = rank(torch.ones(1, 3), torch.zeros(1, 1, dtype=torch.int64), (1, 4))
    assert (ranked.hits.any(), ranked.precision.tolist(), ranked.relevant.tolist()) == (False, [[0.0]], [[0]])


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)), torch.arange(50)[None] % 7
    whole = rank(embeddings, labels, (1, 3))
    monkeypatch.setattr(retrieval, "_BLOCK", 50 * 8)
    for one, other in zip(whole, rank(embeddings, labels, (1, 3)), strict=True):
        torch.testing.assert_close(one, other)


def test_both_levels_of_the_digits() -> None:
    """Embeddings that tell even from odd and nothing else: coarse retrieval is perfect, fine is at chance."""
    subject = digits_subject(embeddings=torch.zeros(270, 2))
    output = subject.outputs("test")
    output.embeddings = torch.eye(2)[output.labels % 2]
    result = measure(subject, RetrievalOptions(True))
    fine, coarse = result["fine"], result["coarse"]
    assert (coarse["recall@1"], coarse["mAP"], coarse["n"], coarse["left_out"]) == (1, 1, 270, 0)
    assert fine["mAP"] == pytest.approx(0.2, abs=0.01)
    recalls = [fine[f"recall@{k}"] for k in (1, 2, 4, 8)]
    assert recalls == sorted(recalls)
    outcomes = result.pop("outcomes")
    assert set(outcomes) == {"retrieval/fine/recall@1", "retrieval/coarse/recall@1"}
    assert unpack(outcomes["retrieval/fine/recall@1"]).mean() == pytest.approx(fine["recall@1"])
    assert "fine: recall@1" in lines(result)[0]
    assert "coarse: recall@1 100.00 %" in lines(result)[1]


def test_queries_without_another_picture_of_their_class_are_left_out() -> None:
    subject = digits_subject(embeddings=torch.randn(270, 3, generator=torch.Generator().manual_seed(3)))
    rows = subject.catalogue.rows("test")
    before = measure(subject, RetrievalOptions(True))["fine"]
    # One test picture becomes the only one of an eleventh class of a flat data set.
    subject.catalogue.fine[rows[0]] = 10
    subject.catalogue.hierarchy = Hierarchy.flat([str(i) for i in range(11)])
    result = measure(subject, RetrievalOptions(True))
    outcomes = result.pop("outcomes")
    assert list(result) == ["fine"]
    after = result["fine"]
    assert (before["n"], before["left_out"], after["n"], after["left_out"]) == (270, 0, 269, 1)
    assert outcomes["retrieval/fine/recall@1"]["n"] == 269
    assert "269 queries, 1 without another picture of their class" in lines(result)[0]


def test_no_class_with_two_pictures() -> None:
    subject = digits_subject(embeddings=torch.randn(270, 3))
    subject.catalogue.fine[subject.catalogue.rows("test")] = np.arange(270)
    subject.catalogue.hierarchy = Hierarchy.flat([str(i) for i in range(270)])
    figures = measure(subject, RetrievalOptions(True))["fine"]
    assert (figures["n"], figures["mAP"], figures["recall@1"]) == (0, None, None)
    assert "0 queries" in lines({"fine": figures})[0]


@pytest.mark.parametrize(
    ("words", "ks"),
    [([], (1, 2, 4, 8)), (["--recall-at", "3"], (3,)), (["--recall-at", "1", "5", "10"], (1, 5, 10))],
)
def test_numbers_of_recall(words: list[str], ks: tuple[int, ...]) -> None:
    values = build_parser("test", "", GROUPS).parse_args(normalise_argv(["--retrieval", *words], GROUPS))
    (options,) = split_namespace(values, GROUPS)
    assert (options.retrieval, options.recall_at) == (True, ks)
    result = measure(digits_subject(embeddings=torch.randn(270, 3)), options)
    assert [name for name in result["fine"] if name.startswith("recall@")] == [f"recall@{k}" for k in ks]
    assert bool(result["outcomes"]) == (1 in ks)


@pytest.mark.parametrize("ks", [0, (1, -2), ()])
def test_impossible_numbers_of_recall(ks: object) -> None:
    with pytest.raises(UserError, match="--recall-at"):
        RetrievalOptions(True, ks)
