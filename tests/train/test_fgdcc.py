"""The fgdcc method: plain classification as a special case, losses by hand, divisions by epochs, every option live."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.commands import TWO, finish, start
from support.runs import assert_equal_runs, data_info

from fgdemo.data import Sample
from fgdemo.errors import UserError
from fgdemo.losses import vicreg, within_class_loss
from fgdemo.models import Network
from train.inference import Outputs
from train.methods import BetweenEpochs, Fgdcc
from train.methods.fgdcc import PRESETS, FgdccOptions
from train.options import EncoderOptions, OptimOptions
from train.state import list_states, load_state
from train.tracking import read_rows

ENCODER = EncoderOptions(encoder="test_resnet", pretrained=False, img_size=32)
DATA = data_info("abcd", 40)
# On the digits with their parity as classes: nine steps an epoch.
SMALL = [
    *("--data", "digits", "--labels", "coarse", "--encoder", "test_resnet", "--no-pretrained", "--img-size", "32"),
    *("--cache", "--epochs", "3", "--batch-size", "128", "--lr", "0.003", "--hflip", "0", "--color-jitter", "0"),
    *("--workers", "0", "--threads", "1", "--device", "cpu", "--trackers", "none"),
]
VICREG = {"invariance": 1.0, "variance": 1.0, "covariance": 0.04}

# option -> a value that is not the default, and what else has to be on for it to act
CHANGES_LOSS: dict[str, tuple[object, dict[str, Any]]] = {
    "label_smoothing": (0.3, {}),
    "preset": ("as-published", {}),
    "ks": ((1, 2), {}),
    "subclass_weight": (0.1, {}),
    "hypotheses": ("chosen", {}),
    "start_epoch": (2, {}),
    "ramp_epochs": (4, {}),
    "min_pictures": (4, {}),
    "select": ("cosine-index-as-published", {"hypotheses": "chosen"}),
    "partition": ("shuffled", {}),
    "space": ("raw", {}),
    "invariance": (1.0, {}),
    "variance": (1.0, {}),
    "covariance": (1.0, {}),
    "pairs": ("class", VICREG),
    "scale": ("raw", VICREG),
}
ELSEWHERE = {
    "mixup": "test_one_subclass_is_plain_classification",
    "cutmix": "test_one_subclass_is_plain_classification",
    "mixup_prob": "test_one_subclass_is_plain_classification",
    "patience": "test_patience_and_challenge_reach_the_partition",
    "challenge": "test_patience_and_challenge_reach_the_partition",
    "choose_every": "test_patience_and_challenge_reach_the_partition",
    "refresh": "test_what_is_divided",
    "subclasses": "test_given_subclasses.py",
    "lock": "test_given_subclasses.py",
    "both_sides": "test_one_side_changes_the_gradient_alone",
}


class Features:
    """Clean features of the 40 pictures that a test hands out, and the log of what was found."""

    def __init__(self, dim: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        classes, clusters = torch.from_numpy(DATA.targets), torch.arange(40) // 4 % 3
        centres = torch.randn(4, 3, dim, generator=generator)
        self.rows = centres[classes, clusters] * (1 + classes[:, None]) + 0.3 * torch.randn(
            40, dim, generator=generator
        )
        self.passes, self.figures = 0, []

    def __call__(self) -> Outputs:
        self.passes += 1
        index = torch.from_numpy(DATA.index)
        return Outputs(index, torch.from_numpy(DATA.targets), torch.zeros(40, 4), self.rows)

    def before(self, epoch: int, first: bool = True, total: Callable | None = None) -> BetweenEpochs:
        return BetweenEpochs(epoch, torch.device("cpu"), self, total or (lambda t: t), first, 0, self.figures.append)


def batch() -> Sample:
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    index = torch.arange(16)
    return Sample(images, index % 4, index, [""] * 16)


def built(**options: object) -> tuple[Fgdcc, Network]:
    torch.manual_seed(0)
    method = Fgdcc(FgdccOptions(**options), DATA)
    network = method.build(ENCODER).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    method.prepare(network, torch.device("cpu"))
    return method, network


def losses(epoch: int = 2, **options: object) -> dict[str, torch.Tensor]:
    """Losses of a batch in an epoch, after the divisions before it."""
    method, network = built(**options)
    features = Features(network.encoder.dim)
    for before in range(epoch + 1):
        method.between_epochs(network, features.before(before))
    return method.training_step(network, batch())


def test_every_option_is_covered() -> None:
    assert {f.name for f in dataclasses.fields(FgdccOptions)} == CHANGES_LOSS.keys() | ELSEWHERE.keys()
    assert not CHANGES_LOSS.keys() & ELSEWHERE.keys()
    assert all(name in globals() or (Path(__file__).parent / name).is_file() for name in ELSEWHERE.values())


@pytest.mark.parametrize("option", sorted(CHANGES_LOSS))
def test_changes_the_loss(option: str) -> None:
    value, others = CHANGES_LOSS[option]
    assert not torch.equal(losses(**others)["total"], losses(**others, **{option: value})["total"])


def test_losses_by_hand() -> None:
    method, network = built(ks=(1, 2, 3), pairs="cluster", ramp_epochs=3, **VICREG)
    features = Features(network.encoder.dim)
    for epoch in range(3):
        method.between_epochs(network, features.before(epoch))
    sample, output = batch(), network(batch().image)
    found = method.training_step(network, sample)
    clusters = torch.from_numpy(method.partition.clusters)[:16]
    assert (clusters >= 0).all()
    within = within_class_loss(output.subclass_logits, sample.label, clusters, torch.ones(16, 3), (1, 2, 3))
    own = torch.from_numpy(method.partition.own_clusters())[:16]
    on_sphere = F.normalize(output.embedding, dim=1) * output.embedding.shape[1] ** 0.5
    terms = vicreg(on_sphere, sample.label * 3 + own)
    expected = F.cross_entropy(output.logits, sample.label) + 0.5 * 2 / 3 * within
    expected = expected + terms.invariance + terms.variance + 0.04 * terms.covariance
    torch.testing.assert_close(found["total"], expected)
    torch.testing.assert_close(found["subclass"], within)
    assert 0 < float(found["paired"]) < 1
    assert set(found) == {"total", "ce", "subclass", "invariance", "variance", "covariance", "paired"}


def test_the_weight_rises_after_the_first_division() -> None:
    method, network = built(start_epoch=2, ramp_epochs=2, subclass_weight=0.8)
    features, weights = Features(network.encoder.dim), []
    for epoch in range(5):
        method.between_epochs(network, features.before(epoch))
        weights.append(method.subclass_weight())
        assert method.partition.known is (epoch >= 2)
    assert weights == [0, 0, 0.4, 0.8, 0.8]
    at_once, network = built(start_epoch=0, ramp_epochs=0, subclass_weight=0.8)
    at_once.between_epochs(network, Features(network.encoder.dim).before(0))
    assert at_once.subclass_weight() == 0.8


@pytest.mark.parametrize(("refresh", "passes"), [(0, [0, 1, 1, 1, 1]), (1, [0, 1, 2, 3, 4]), (3, [0, 1, 1, 1, 2])])
def test_what_is_divided(refresh: int, passes: list[int]) -> None:
    """Clean features every so many divisions, else what the steps have written."""
    method, network = built(refresh=refresh)
    features, found = Features(network.encoder.dim), []
    for epoch in range(5):
        method.between_epochs(network, features.before(epoch))
        method.training_step(network, batch())
        found.append(features.passes)
    assert found == passes
    written = F.normalize(network(batch().image).embedding, dim=1)
    torch.testing.assert_close(method.bank.features(unit=True)[:16], written, atol=1e-3, rtol=1e-2)
    clean = F.normalize(features.rows, dim=1)
    torch.testing.assert_close(method.bank.features(unit=True)[16:], clean[16:], atol=1e-3, rtol=1e-2)
    assert method.bank.stamp.tolist()[:16] == [4] * 16


def test_patience_and_challenge_reach_the_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    method, network = built(patience=3, challenge=2, choose_every=3)
    assert method.partition.rules.patience == 3
    asked = []
    update = method.partition.update
    monkeypatch.setattr(method.partition, "update", lambda x, **given: asked.append(given) or update(x, **given))
    features = Features(network.encoder.dim)
    for epoch in range(6):
        method.between_epochs(network, features.before(epoch))
    assert [given["challenge"] for given in asked] == [True, False, True, False, True]
    assert [given["choose"] for given in asked] == [True, False, False, True, False]


def test_one_side_changes_the_gradient_alone() -> None:
    values, grads = [], []
    for both in (True, False):
        method, network = built(ks=(1,), both_sides=both, pairs="class", **VICREG)
        loss = method.training_step(network, batch())
        (loss["total"] - loss["ce"]).backward()
        values.append(loss["total"].detach())
        grads.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    torch.testing.assert_close(*values)
    assert grads[1].norm() < 0.9 * grads[0].norm()


def test_columns_are_active_where_a_class_has_the_subclasses() -> None:
    method, network = built(ks=(1, 2, 3), min_pictures=5)
    features = Features(network.encoder.dim)
    method.between_epochs(network, features.before(0))
    assert network.active.all()
    method.between_epochs(network, features.before(1))
    # ten pictures of each class hold two subclasses of five pictures
    assert network.active.tolist() == [[True] * 3 + [False] * 3] * 4
    assert torch.isfinite(method.training_step(network, batch())["total"])


def test_shuffled_subclasses_stay() -> None:
    method, network = built(partition="shuffled")
    features = Features(network.encoder.dim)
    method.between_epochs(network, features.before(1))
    clusters = method.partition.clusters.copy()
    method.between_epochs(network, Features(network.encoder.dim, seed=1).before(2))
    assert np.array_equal(method.partition.clusters, clusters)
    assert method.divide(features(), seed=0) is None


def test_other_processes_get_the_clusters_of_the_first() -> None:
    first, network = built()
    other, its_network = built()
    features = Features(network.encoder.dim)
    sent: list[torch.Tensor] = []
    first.between_epochs(network, features.before(1, total=lambda t: sent.append(t.clone()) or t))
    received = iter(sent)

    def total(tensor: torch.Tensor) -> torch.Tensor:
        theirs = next(received)
        # what both have read is the same; only the clusters come from the first alone
        return tensor if torch.equal(theirs, tensor) else tensor + theirs

    other.between_epochs(its_network, features.before(1, first=False, total=total))
    assert np.array_equal(first.partition.clusters, other.partition.clusters)
    assert len(features.figures) == 1
    for one, two in zip(
        first.training_step(network, batch()).values(), other.training_step(its_network, batch()).values(), strict=True
    ):
        assert torch.equal(one, two)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_train(preset: str) -> None:
    found = losses(preset=preset)
    assert ("invariance" in found) is (preset == "as-published")
    assert torch.isfinite(found["total"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ks": (2, 1)}, "ascending whole numbers"),
        ({"ks": (1, 11)}, "--ks goes up to 11, but the largest class has 10"),
        ({"subclass_weight": -1.0}, "--subclass-weight"),
        ({"covariance": -1.0}, "--covariance"),
        ({"refresh": -1}, "--refresh"),
        ({"min_pictures": 0}, "--min-pictures"),
        ({"choose_every": 0}, "--choose-every"),
        ({"mixup": 0.2}, "--mixup"),
        ({"ks": (1,), "cutmix": 0.2, "variance": 1.0}, "--mixup"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
    ],
)
def test_refused_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Fgdcc(FgdccOptions(**options), DATA)


def test_what_pairs_need_of_the_batches() -> None:
    paired = Fgdcc(FgdccOptions(**VICREG), DATA)
    with pytest.raises(UserError, match="--per-class 2"):
        paired.check(OptimOptions(batch_size=7))
    paired.check(OptimOptions(batch_size=8))
    paired.check(OptimOptions(batch_size=4, per_class=2))
    views = Fgdcc(FgdccOptions(pairs="picture", **VICREG), DATA)
    with pytest.raises(UserError, match="--views 2"):
        views.check(OptimOptions())
    views.check(OptimOptions(views=2))
    with pytest.raises(UserError, match="--start-epoch 30"):
        Fgdcc(FgdccOptions(start_epoch=30), DATA).check(OptimOptions(epochs=30))


def test_one_subclass_is_plain_classification(train: Callable[..., Path]) -> None:
    """Equal to the last bit, mixing included."""
    for words in ([], ["--mixup", "0.4", "--cutmix", "0.5", "--mixup-prob", "0.7"]):
        plain = train("--epochs", "1", *words, name=f"plain{len(words)}", small=SMALL)
        ours = train("--epochs", "1", *words, "--ks", "1", name=f"ours{len(words)}", method="fgdcc", small=SMALL)
        weights, same = (load_state(list_states(f / "state")[-1]).tensors["model"] for f in (plain, ours))
        assert set(same) == {*weights, "active"}
        for name, tensor in weights.items():
            assert torch.equal(tensor, same[name]), name
        curves = [
            [row.get("loss/total", row.get("val/nll")) for row in read_rows(f / "metrics.jsonl")] for f in (plain, ours)
        ]
        assert curves[0] == curves[1]


def test_a_killed_run_goes_on_alike(train: Callable[..., Path]) -> None:
    """Bank, clusters and their history included, from the middle of an epoch."""
    train = partial(train, method="fgdcc", small=SMALL)
    words = ["--views", "2", "--pairs", "picture", "--variance", "1", "--invariance", "1"]
    words += ["--checkpoint-every", "5", "--keep", "9", "--patience", "2", "--log-every", "1", "--ema", "0.9"]
    whole, broken = train(*words, name="whole"), train(*words, name="broken")
    middle = next(path for path in list_states(broken / "state") if load_state(path).step == 15)
    train(*words, "--resume", str(middle), name="broken")
    assert_equal_runs(whole, broken)
    rows = read_rows(whole / "metrics.jsonl")
    divisions = [row for row in rows if "subclasses/ratio" in row]
    assert [row["epoch"] for row in divisions] == [1, 2]
    assert {"features/norm", "features/effective_rank", "subclasses/kmeans_loss", "subclasses/k"} <= divisions[0].keys()
    assert "subclasses/ari" in divisions[1]


def test_two_processes_train(tmp_path: Path) -> None:
    """The same clusters on both, and a checkpoint in the end."""
    words = [*SMALL, "--epochs", "2", "--batch-size", "64", "--invariance", "1"]
    words += ["--pairs", "cluster", "--variance", "1", "--output", str(tmp_path / "run")]
    code, _, err = finish(start("fgdcc", *words, launcher=TWO))
    assert code == 0, err
    state = load_state(list_states(tmp_path / "run" / "state")[-1])
    assert (state.tensors["method"]["partition.chosen"] > 0).all()
    # pictures that only the second process has seen are known to the first, which saved the state
    assert int((state.tensors["method"]["bank.stamp"] == 1).sum()) > 0.9 * 18 * 64
    assert (tmp_path / "run" / "checkpoint" / "config.json").is_file()
