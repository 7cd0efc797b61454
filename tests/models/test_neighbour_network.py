"""Votes of neighbours against straight loops and scikit-learn, and the network that carries them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from fgdemo.errors import UserError
from fgdemo.explain.explanation import explain
from fgdemo.models import build_from_config, build_network, neighbour_votes
from fgdemo.models.neighbour_network import NeighbourNetwork
from fgdemo.models.neighbour_votes import NO_VOTE, log_votes, neighbourhood

CLASSES = 6


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (40, 8), a memory (90, 8) of unit rows, and their classes; the last class has no row."""
    generator = torch.Generator().manual_seed(2)
    queries, memory = (torch.randn(n, 8, generator=generator) for n in (40, 90))
    classes = torch.randint(0, CLASSES - 1, (90,), generator=generator)
    return queries, torch.nn.functional.normalize(memory, dim=1), classes


def logits_of(data: tuple[torch.Tensor, ...], k: int, temperature: float) -> torch.Tensor:
    queries, memory, classes = data
    return log_votes(neighbourhood(queries, memory, classes, CLASSES, k), k, temperature)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (9, 0.07), (9, 1.0), (90, 0.2)])
def test_votes_equal_a_straight_loop(data: tuple[torch.Tensor, ...], k: int, temperature: float) -> None:
    queries, memory, classes = (tensor.double().numpy() for tensor in data)
    found = logits_of(data, k, temperature).numpy()
    for query, logits in zip(queries, found, strict=True):
        similarity = memory @ (query / np.linalg.norm(query))
        votes = np.zeros(CLASSES)
        for row in np.argsort(-similarity)[:k]:
            votes[int(classes[row])] += np.exp(similarity[row] / temperature)
        best = np.array([similarity[classes == c].max(initial=-1) for c in range(CLASSES)])
        with np.errstate(divide="ignore"):
            expected = np.where(votes > 0, np.log(votes), best / temperature - NO_VOTE)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_shares_are_those_of_scikit_learn(data: tuple[torch.Tensor, ...]) -> None:
    queries, memory, classes = data
    reference = KNeighborsClassifier(
        n_neighbors=12, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.1)
    ).fit(memory.numpy(), classes.numpy())
    shares = logits_of(data, 12, 0.1).softmax(1).numpy()
    np.testing.assert_allclose(shares[:, :-1], reference.predict_proba(queries.numpy()), atol=2e-6)
    assert shares[:, -1].max() < 1e-6


def test_a_chunked_memory_says_the_same(data: tuple[torch.Tensor, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    queries, memory, classes = data
    own = torch.arange(40)
    whole = neighbourhood(queries, memory, classes, CLASSES, 9, own=own)
    monkeypatch.setattr(neighbour_votes, "CHUNK", 7)
    for one, other in zip(whole, neighbourhood(queries, memory, classes, CLASSES, 9, own=own), strict=True):
        torch.testing.assert_close(one, other)


def test_a_row_that_is_its_own_query_is_left_out(data: tuple[torch.Tensor, ...]) -> None:
    _, memory, classes = data
    rows = torch.tensor([5, 0, 89])
    near = neighbourhood(memory[rows], memory, classes, CLASSES, 89, own=rows)
    for i, row in enumerate(rows.tolist()):
        others = [r for r in range(90) if r != row]
        expected = neighbourhood(memory[row][None], memory[others], classes[others], CLASSES, 89)
        for column, single in zip(near, expected, strict=True):
            torch.testing.assert_close(column[i], single[0])


@pytest.mark.parametrize("temperature", [1e-3, 0.05, 10.0])
def test_classes_without_votes_come_last_in_the_order_of_their_nearest_rows(
    data: tuple[torch.Tensor, ...], temperature: float
) -> None:
    queries, memory, classes = data
    near = neighbourhood(queries, memory, classes, CLASSES, 2)
    logits = log_votes(near, 2, temperature)
    assert logits.isfinite().all()
    for i in range(len(queries)):
        voted = near.classes[i].unique()
        silent = [c for c in range(CLASSES) if c not in voted]
        assert logits[i, voted].min() > logits[i, silent].max()
        assert logits[i, silent].argsort().tolist() == near.best[i, silent].argsort().tolist()


def test_a_query_opposite_to_everything_still_gets_shares() -> None:
    memory = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.8, 0.6]])
    near = neighbourhood(torch.tensor([[-3.0, 0.0]]), memory, torch.tensor([0, 0, 1]), 2, 3)
    shares = log_votes(near, 3, 1e-3).softmax(1)
    assert shares.tolist() == [[0.0, 1.0]]


def test_every_class_with_a_row_has_a_gradient(data: tuple[torch.Tensor, ...]) -> None:
    _, memory, classes = data
    query = torch.ones(1, 8, requires_grad=True)
    logits = log_votes(neighbourhood(query, memory, classes, CLASSES, 1), 1, 0.07)
    for c in range(CLASSES):
        (slope,) = torch.autograd.grad(logits[0, c], query, retain_graph=True)
        assert slope.isfinite().all()
        assert bool(slope.any()) == (c != CLASSES - 1)


def filled(architecture: str = "test_resnet", rows: int = 30, **arguments: object) -> NeighbourNetwork:
    network = build_network("neighbours", architecture=architecture, num_classes=5, **{"img_size": 64, **arguments})
    memory = torch.randn(rows, network.encoder.dim)
    network.remember(memory, torch.arange(rows) % 5, k=7, temperature=0.3)
    return network.eval()


def as_checkpoint(network: NeighbourNetwork) -> dict:
    ours = {"network": network.network_name, "network_args": network.network_args()}
    return json.loads(json.dumps(network.config() | {"fgdemo": ours}))


@torch.no_grad()
def test_config_and_weights_rebuild_every_architecture(any_case) -> None:
    name, size, args = any_case
    network = filled(name, img_size=size, model_args=args)
    config = as_checkpoint(network)
    assert "architecture" not in config
    again = build_from_config(config).eval()
    again.load_weights(network.weights())
    images = torch.randn(2, 3, *network.encoder.input_size)
    out = network(images)
    assert torch.equal(again(images).logits, out.logits)
    assert torch.equal(out.embedding, network.encoder(images))
    assert torch.equal(out.logits, network.votes(out.embedding))
    # What follows the model from its features to its logits finds the votes; distilled models average those of each of
    # two tokens there, and not those of the tokens' average.
    if "distilled" not in name:
        torch.testing.assert_close(network.encoder.net(images), out.logits)
    assert again.config() == network.config()
    assert again.network_args() == network.network_args()


def test_a_new_network_has_no_preference() -> None:
    network = build_network("neighbours", architecture="test_resnet", num_classes=1, img_size=32).eval()
    assert network(torch.randn(2, 3, 32, 32)).logits.softmax(1).tolist() == [[1.0], [1.0]]
    assert network.new_modules() == ()


@torch.no_grad()
def test_similarities_are_in_full_precision_inside_autocast() -> None:
    network = filled()
    images = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(images)
        assert out.embedding.dtype == torch.bfloat16
        assert out.logits.dtype == torch.float32
    torch.testing.assert_close(out.logits, network.votes(out.embedding.float()), rtol=0, atol=1e-5)


@torch.no_grad()
def test_it_compiles_in_one_piece() -> None:
    network = filled()
    images = torch.randn(2, 3, 64, 64)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images).logits, network(images).logits, rtol=1e-4, atol=1e-5)


def test_memory_stored_as_float16_says_nearly_the_same() -> None:
    network = filled()
    halved = {name: t.half() if t.is_floating_point() else t for name, t in network.weights().items()}
    again = build_from_config(as_checkpoint(network)).eval()
    again.load_weights(halved)
    assert again.votes.memory.dtype == torch.float32
    features = torch.randn(9, network.encoder.dim)
    assert not torch.equal(again.votes(features), network.votes(features))
    torch.testing.assert_close(again.votes(features), network.votes(features), rtol=0, atol=5e-3)


def test_weights_of_another_memory_are_refused() -> None:
    network = filled()
    empty = build_from_config(as_checkpoint(filled(rows=31)))
    with pytest.raises(UserError, match=r"memory \[30, \d+\] for \[31"):
        empty.load_weights(network.weights())
    lacking = network.weights()
    del lacking["fc.memory_class"]
    with pytest.raises(UserError, match=r"missing fc\.memory_class"):
        filled().load_weights(lacking)
    wrong = network.weights() | {"fc.memory_class": torch.full((30,), 5)}
    with pytest.raises(UserError, match="a picture of class 5, but there are classes 0 to 4"):
        filled().load_weights(wrong)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": 0}, "at least 1, not 0"),
        ({"k": True}, "at least 1, not True"),
        ({"k": "3"}, "at least 1, not '3'"),
        ({"temperature": 0}, "above 0, not 0"),
        ({"temperature": float("nan")}, "above 0, not nan"),
        ({"temperature": "1"}, "above 0, not '1'"),
        ({"rows": 0}, "at least one row, not 0"),
        ({"rows": 2.0}, r"at least one row, not 2\.0"),
    ],
)
def test_arguments_that_cannot_be(changes: dict, said: str) -> None:
    config = as_checkpoint(filled())
    config["fgdemo"]["network_args"] |= changes
    with pytest.raises(UserError, match=said):
        build_from_config(config)


@pytest.mark.parametrize(
    "source",
    [
        lambda: build_network("timm", architecture="test_vit", num_classes=3, img_size=96),
        lambda: build_network("timm", architecture="deit_tiny_distilled_patch16_224", num_classes=3, img_size=64),
        lambda: build_network("conv_vit", architecture="vit_conv_mini_patch16_128", num_classes=7, img_size=64),
        lambda: filled("test_resnet"),
    ],
    ids=["timm", "two classifiers", "own", "neighbours"],
)
@torch.no_grad()
def test_the_encoder_of_another_network_is_taken_over(source) -> None:
    given = source().eval()
    before = {name: t.clone() for name, t in given.state_dict().items()}
    network = NeighbourNetwork.on_encoder(given.encoder, 2).eval()
    images = torch.randn(2, 3, *given.encoder.input_size)
    assert torch.equal(network(images).embedding, given(images).embedding)
    assert network(images).logits.shape == (2, 2)
    assert all(torch.equal(t, given.state_dict()[name]) for name, t in before.items())
    network.votes.memory.fill_(1)
    next(network.encoder.net.parameters()).add_(1)
    assert all(torch.equal(t, given.state_dict()[name]) for name, t in before.items())


@pytest.mark.parametrize(("name", "kind"), [("test_resnet", "activation"), ("test_vit", "votes")])
def test_it_can_be_explained(name: str, kind: str) -> None:
    network = filled(name)
    network.remember(torch.randn(10, network.encoder.dim), torch.arange(10) % 5, k=1, temperature=0.3)
    image = torch.randn(3, 64, 64)
    logits = network(image[None]).logits[0].detach()
    for target in (None, *range(5)):
        found = explain(network, image, (0, 0, 64, 64), target=target)
        assert found.kind == kind
        if kind == "activation":
            chosen = int(logits.argmax()) if target is None else target
            assert found.activation.target == chosen
            assert found.activation.logit == pytest.approx(float(logits[chosen]), rel=1e-4)
            assert found.activation.contributions.any()
