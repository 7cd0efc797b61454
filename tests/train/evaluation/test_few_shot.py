"""Few-shot accuracy against scikit-learn episode by episode, its support copies, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from support.commands import ROOT
from support.subjects import digits_subject
from torch import Tensor, nn

from fgdemo.data import Hierarchy, Preprocessing
from fgdemo.data.rng import keyed_random
from fgdemo.errors import UserError
from train.__main__ import main
from train.evaluation import Subject, few_shot
from train.evaluation.episodes import draw_episodes
from train.evaluation.few_shot import (
    CLASSIFIERS,
    FewShotOptions,
    lines,
    measure,
    score_episodes,
    support_embeddings,
    support_transform,
)
from train.evaluation.outcomes import unpack
from train.statistics import t_interval

PLAIN = FewShotOptions(few_shot=True, ways=5, shots=1, queries=8, episodes=20, copies=2)


class Pixels(nn.Module):
    """Embeds a picture by its pixels, reduced to 8 x 8, times `scale`."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, images: Tensor) -> SimpleNamespace:
        embedding = self.scale * F.avg_pool2d(images.mean(1, keepdim=True), 4).flatten(1)
        return SimpleNamespace(logits=torch.zeros(len(images), 10), embedding=embedding)


def pixel_subject(level: str = "coarse", hflip: float = 0.0, scale: float = 1.0) -> Subject:
    subject = digits_subject(Pixels(scale), level=level)
    subject.ours["options"] = {"hflip": hflip}
    subject.ours["embedding"] = {"space": "pooled"}
    return subject


@pytest.fixture
def subject() -> Subject:
    return pixel_subject()


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """Figures with the options PLAIN."""
    return measure(pixel_subject(), PLAIN)


def sklearn_cosine(support: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    means = np.stack([support[labels == c].mean(0) for c in range(labels.max() + 1)])
    return (queries @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)


ORACLES = {
    "lr": lambda x, y, q: LogisticRegression(solver="newton-cholesky", tol=1e-10).fit(x, y).predict(q),
    "centroid": lambda x, y, q: NearestCentroid().fit(x, y).predict(q),
    "cosine": sklearn_cosine,
    "knn": lambda x, y, q: KNeighborsClassifier(5, weights="distance", algorithm="brute").fit(x, y).predict(q),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("shots", [1, 3])
def test_episodes_agree_with_scikit_learn(name: str, shots: int) -> None:
    """Every episode, of three to five ways, from two copies of each support picture."""
    generator = torch.Generator().manual_seed(0)
    fine = torch.arange(12).repeat(15).numpy()
    coarse = np.repeat([0, 1, 2], [3, 4, 5])[fine]
    clean = torch.randn(12, 16, generator=generator)[fine] + torch.randn(len(fine), 16, generator=generator)
    copies = clean + 0.3 * torch.randn(2, len(fine), 16, generator=generator)
    drawn = draw_episodes(fine, coarse, ways=0, shots=shots, queries=6, episodes=12, intra_class=True)
    accuracy, converged = score_episodes(drawn, clean, copies, CLASSIFIERS[name])
    assert converged.all()
    assert len(drawn.groups) == 3
    for group in drawn.groups:
        for number, support, query in zip(group.number, group.support, group.query, strict=True):
            x = np.concatenate([copies[r].numpy()[support.reshape(-1)] for r in range(2)]).astype(np.float64)
            y = np.tile(np.repeat(np.arange(group.ways), shots), 2)
            predicted = ORACLES[name](x, y, clean.numpy()[query.reshape(-1)].astype(np.float64))
            assert accuracy[number] == pytest.approx((predicted == np.repeat(np.arange(group.ways), 6)).mean())
    assert 0.4 < accuracy.mean() < 1


def test_copies_of_a_query_do_not_help_it() -> None:
    """Queries come from the clean features, support from the copies alone: with nonsense copies, chance."""
    fine = np.repeat(np.arange(5), 20)
    clean = 10 * F.one_hot(torch.from_numpy(fine), 5).float()
    drawn = draw_episodes(fine, fine, ways=0, shots=1, queries=15, episodes=30)
    assert score_episodes(drawn, clean, clean[None], CLASSIFIERS["cosine"])[0].mean() == 1
    wrong = clean.roll(1, 1)[None]
    assert score_episodes(drawn, clean, wrong, CLASSIFIERS["cosine"])[0].mean() == 0


def test_an_identical_neighbour_outvotes_the_others() -> None:
    support = torch.tensor([[[0.0], [0.1], [0.1], [0.1], [5.0]]])
    predicted, _ = CLASSIFIERS["knn"](support, torch.tensor([0, 1, 1, 1, 1]), torch.tensor([[[0.0], [0.01]]]), 2)
    # at distance 0 the neighbour decides alone; at 0.01 its 100 still beats three times 1 / 0.09
    assert predicted.tolist() == [[0, 0]]
    assert CLASSIFIERS["knn"](support, torch.tensor([0, 1, 1, 1, 1]), torch.tensor([[[0.06]]]), 2)[0].item() == 1


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = np.repeat(np.arange(6), 10)
    clean = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    drawn = draw_episodes(fine, fine, ways=4, shots=1, queries=5, episodes=7)
    whole, _ = score_episodes(drawn, clean, clean[None], CLASSIFIERS["lr"])
    monkeypatch.setattr(few_shot, "BLOCK_BYTES", 1)
    np.testing.assert_array_equal(score_episodes(drawn, clean, clean[None], CLASSIFIERS["lr"])[0], whole)


def picture(width: int, height: int) -> Image.Image:
    """Red grows to the right from 0 to 255, green downwards."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 0 * down], 2).astype(np.uint8))


@pytest.mark.parametrize(("width", "height"), [(448, 448), (640, 480), (300, 500)])
@pytest.mark.parametrize(("crop_mode", "size"), [("center", (224, 224)), ("squash", (224, 224)), ("center", (64, 96))])
def test_support_pictures_are_crops_of_seven_eighths(
    width: int, height: int, crop_mode: str, size: tuple[int, int]
) -> None:
    pre = Preprocessing((3, *size), "bilinear", (0, 0, 0), (1, 1, 1), crop_mode=crop_mode)
    transform = support_transform(pre, 0.0)
    crops = []
    for seed in range(8):
        with keyed_random(seed):
            crops.append(transform(picture(width, height)))
    assert {tuple(crop.shape) for crop in crops} == {(3, *size)}
    red = torch.tensor([float(crop[0].max() - crop[0].min()) for crop in crops])
    green = torch.tensor([float(crop[1].max() - crop[1].min()) for crop in crops])
    # the tighter side shows 224 / 256 of the picture; the other less, unless the picture is squashed
    scale = max(size[1] / width, size[0] / height)
    shares = (1, 1) if crop_mode == "squash" else (size[1] / (scale * width), size[0] / (scale * height))
    assert red.mean().item() == pytest.approx(0.875 * shares[0], abs=0.02)
    assert green.mean().item() == pytest.approx(0.875 * shares[1], abs=0.02)
    assert len({float(crop[0].min()) for crop in crops}) > 3
    assert len({float(crop[1].min()) for crop in crops}) > 3


def test_mirroring_follows_its_probability() -> None:
    pre = Preprocessing((3, 64, 64))
    never, always = support_transform(pre, 0.0), support_transform(pre, 1.0)
    with keyed_random(3):
        plain = never(picture(100, 80))
    with keyed_random(3):
        mirrored = always(picture(100, 80))
    assert torch.equal(mirrored, plain.flip(2))
    assert not torch.equal(mirrored, plain)


def test_copies_depend_on_their_number_and_picture_alone(subject: Subject) -> None:
    copies = support_embeddings(subject, 3, 0.0)
    assert copies.shape == (3, 270, 64)
    assert torch.equal(support_embeddings(subject, 2, 0.0), copies[:2])
    assert not torch.equal(copies[0], copies[1])
    clean = subject.outputs("test").embeddings
    assert torch.equal(support_embeddings(subject, 0, 0.0), clean[None])
    # a copy is nearer to its own picture than to most others
    cosine = F.normalize(copies[0] - clean.mean(0), dim=1) @ F.normalize(clean - clean.mean(0), dim=1).T
    assert (cosine.argsort(1, descending=True)[:, :20] == torch.arange(270)[:, None]).any(1).float().mean() > 0.9


def test_figures_are_those_of_the_episodes(plain: dict[str, Any]) -> None:
    result = plain
    accuracy = unpack(result["outcomes"]["few_shot/accuracy"])
    interval = t_interval(accuracy)
    assert result["accuracy"] == pytest.approx(interval.mean)
    assert result["half_width"] == pytest.approx(interval.high - interval.mean)
    assert result["half_width"] == pytest.approx(2.093 * accuracy.std(ddof=1) / np.sqrt(20), rel=1e-3)
    assert result["outcomes"]["few_shot/accuracy"]["total"] == 5 * 8
    assert (result["episodes"], result["ways_min"], result["ways_max"]) == (20, 5, 5)
    assert result["support_per_class"] == 2
    assert result["options"] == {
        "ways": 5, "shots": 1, "queries": 8, "episodes": 20, "intra_class": False, "feat_norm": True, "copies": 2,
        "classifier": "lr",
    }  # fmt: skip
    assert json.loads(json.dumps(result)) == result
    table = "\n".join(lines(result))
    for part in (f"{100 * interval.mean:.2f} %", "20 episodes", "5-way 1-shot", "pooled embedding", "unit norm"):
        assert part in table
    assert "by name" not in table


@pytest.mark.parametrize(
    "change",
    [
        {"ways": 4}, {"ways": 0}, {"shots": 2}, {"queries": 7}, {"episodes": 19}, {"intra_class": True},
        {"feat_norm": False}, {"copies": 0}, {"copies": 1}, {"classifier": "centroid"}, {"classifier": "cosine"},
        {"classifier": "knn"},
    ],
    ids=lambda change: " ".join(f"{key} {value}" for key, value in change.items()),
)  # fmt: skip
def test_every_option_changes_the_outcome(subject: Subject, plain: dict[str, Any], change: dict[str, Any]) -> None:
    changed = measure(subject, replace(PLAIN, **change))
    assert changed["outcomes"]["few_shot/accuracy"] != plain["outcomes"]["few_shot/accuracy"]
    assert changed["options"] == {**plain["options"], **change}
    assert lines(changed) != lines(plain)


def test_mirrors_as_training_did(subject: Subject, plain: dict[str, Any]) -> None:
    mirrored = measure(pixel_subject(hflip=1.0), PLAIN)
    assert (plain["hflip"], mirrored["hflip"]) == (0, 1)
    assert mirrored["accuracy"] != plain["accuracy"]
    # a run that says nothing of mirrors gets none
    subject.ours["options"] = {}
    assert measure(subject, PLAIN) == plain


def test_unit_norm_forgets_the_scale_of_features() -> None:
    for feat_norm in (True, False):
        options = replace(PLAIN, feat_norm=feat_norm, copies=0)
        small, large = (measure(pixel_subject(scale=scale), options) for scale in (1.0, 64.0))
        assert (small["outcomes"] == large["outcomes"]) == feat_norm


def test_episodes_of_differing_ways(subject: Subject) -> None:
    """Even digits are 0, 2, 4, 6, 8; without most pictures of 0 they are four."""
    output = subject.outputs("test")
    zeros = torch.nonzero(torch.from_numpy(subject.catalogue.fine)[output.index] == 0)[3:, 0]
    kept = torch.ones(len(output.index), dtype=torch.bool)
    kept[zeros] = False
    fewer = pixel_subject()
    fewer._outputs["test"] = replace(
        output, **{name: getattr(output, name)[kept] for name in ("index", "labels", "logits", "embeddings")}
    )
    result = measure(fewer, replace(PLAIN, ways=0, queries=15, copies=0, intra_class=True))
    assert (result["ways_min"], result["ways_max"]) == (4, 5)
    assert (result["queries"], result["left_out"], result["superclasses_left_out"]) == (5, ["0"], [])
    accuracy = unpack(result["outcomes"]["few_shot/accuracy"])
    assert result["accuracy"] == pytest.approx(accuracy.mean(), abs=1e-4)
    table = "\n".join(lines(result))
    for part in ("4-5-way", "5 queries: some class has fewer than 16", "fine classes left out as too small: 1"):
        assert part in table
    # the picture of a digit that went missing after the clean pass is missed
    with pytest.raises(UserError, match="Other pictures"):
        measure(fewer, PLAIN)


def test_says_what_training_saw() -> None:
    result = measure(pixel_subject("fine"), replace(PLAIN, episodes=1))
    assert result["half_width"] is None
    assert "    training saw these classes by name" in lines(result)


def test_says_where_logistic_regression_did_not_converge(plain: dict[str, Any]) -> None:
    assert not any("converge" in line for line in lines(plain))
    assert any("converge in 3 episodes" in line for line in lines({**plain, "not_converged": 3}))


def test_refusals(subject: Subject) -> None:
    with pytest.raises(UserError, match="--copies is -1"):
        measure(subject, replace(PLAIN, copies=-1))
    flat = pixel_subject()
    flat.catalogue.hierarchy = Hierarchy.flat(flat.catalogue.hierarchy.fine_names)
    flat.catalogue.coarse = flat.catalogue.fine
    with pytest.raises(UserError, match="one level of classes"):
        measure(flat, replace(PLAIN, intra_class=True))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the digits that come with the repository: a network that knows them tells them apart from one picture."""
    argv = ["evaluate", str(ROOT / "checkpoints" / "digits-classify"), "--out", str(tmp_path), "--device", "cpu"]
    argv += ["--workers", "0", "--threads", "1"]
    assert main([*argv, "--few-shot", "--episodes", "50", "--copies", "1"]) == 0
    result = json.loads((tmp_path / "test.json").read_text())
    (name,) = result["few_shot"]
    found = result["few_shot"][name]
    assert found["accuracy"] > 0.9
    assert result["outcomes"][f"few_shot/{name}/accuracy"]["n"] == 50
    assert "outcomes" not in found
    assert f"{100 * found['accuracy']:.2f} %" in capsys.readouterr().out
    # another setting stands beside the first
    assert main([*argv, "--few-shot", "--episodes", "20", "--copies", "0", "--classifier", "centroid"]) == 0
    both = json.loads((tmp_path / "test.json").read_text())
    assert both["few_shot"][name] == found
    assert list(both["few_shot"]) == [name, "5-way 1-shot centroid, episodes=20, copies=0"]
    assert {path for path in both["outcomes"] if "few_shot" in path} == {
        f"few_shot/{name}/accuracy" for name in both["few_shot"]
    }
