"""Views, shared scales and refusals of the explanation, and its voting maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fgdemo.errors import UserError
from fgdemo.explain.explanation import explain
from fgdemo.explain.voting_maps import voting_maps
from fgdemo.models.build import build_classifier
from fgdemo.models.votes import enhance, head_votes

BOX = (4.5, 0.0, 100.0, 64.25)


@pytest.fixture
def votes(network):
    net = network("test_vit")
    return explain(net, torch.randn(3, 64, 96), BOX, k=5)


def test_voting_maps_follow_the_class_rows(network):
    net = network("vit_small_patch16_dinov3", depth=2, embed_dim=48, num_heads=3)
    image = torch.randn(3, 64, 96)
    maps = voting_maps(net.encoder, image, k=6)
    with torch.no_grad():
        rows = net.encoder.class_rows(image[None])
    counts = head_votes(rows.logits, 6)
    assert maps.grid == rows.grid == (4, 6)
    np.testing.assert_array_equal(maps.attention, rows.softmax()[0].reshape(2, 3, 4, 6))
    np.testing.assert_array_equal(maps.votes, counts[0].reshape(2, 4, 6))
    np.testing.assert_array_equal(maps.scores, enhance(counts, rows.grid)[0].reshape(2, 4, 6))
    np.testing.assert_array_equal(maps.ballots.sum(1), maps.votes)
    np.testing.assert_allclose(maps.attention.sum((2, 3)), 1, rtol=1e-5)
    single = enhance(torch.from_numpy(maps.ballots[1, 2]).flatten()[None], (4, 6)).reshape(4, 6)
    np.testing.assert_array_equal(maps.head_scores()[1, 2], single)


def test_default_k_and_single_scale(network):
    net = network("test_vit")
    maps = voting_maps(net.encoder, torch.randn(3, 64, 96), dilations=(1,))
    assert maps.k == 4
    np.testing.assert_array_equal(
        maps.scores, enhance(torch.from_numpy(maps.votes).flatten(1), (4, 6), (1,)).reshape(6, 4, 6)
    )


def test_transformers_are_explained_by_votes(votes):
    assert (votes.kind, votes.grid, votes.box) == ("votes", (4, 6), BOX)
    assert (votes.num_blocks, votes.num_heads) == (6, 2)
    assert votes.views == ("votes", "scores", "attention")


def test_convolutional_networks_are_explained_by_activation(network):
    net = network("resnet18")
    image = torch.randn(3, 64, 96)
    explanation = explain(net, image, BOX, target=1)
    assert (explanation.kind, explanation.grid) == ("activation", (2, 3))
    assert (explanation.num_blocks, explanation.num_heads, explanation.views) == (0, 0, ("activation",))
    assert explanation.activation.target == 1
    view = explanation.select()
    np.testing.assert_array_equal(view.map, explanation.activation.contributions.clip(min=0))
    assert (view.vmin, view.vmax) == (0, view.map.max())


def test_views_of_single_blocks_share_one_scale(votes):
    voting = votes.voting
    for what, maps in (("votes", voting.votes), ("scores", voting.scores), ("attention", voting.attention.mean(1))):
        views = [votes.select(block, "all", what) for block in range(6)]
        for block, view in enumerate(views):
            np.testing.assert_allclose(view.map, maps[block], rtol=1e-6)
        assert {(v.vmin, v.vmax) for v in views} == {(0.0, float(maps.max()))}


def test_views_of_single_heads_share_one_scale(votes):
    voting = votes.voting
    for what, maps in (("votes", voting.ballots), ("scores", voting.head_scores()), ("attention", voting.attention)):
        views = {(b, h): votes.select(b, h, what) for b in range(6) for h in range(2)}
        for (block, head), view in views.items():
            np.testing.assert_array_equal(view.map, maps[block, head].astype(np.float32))
        assert {v.vmax for v in views.values()} == {float(maps.max())}


def test_all_blocks_together(votes):
    voting = votes.voting
    np.testing.assert_array_equal(votes.select(what="votes").map, voting.votes.sum(0))
    np.testing.assert_array_equal(votes.select(what="scores").map, voting.scores.sum(0))
    np.testing.assert_allclose(votes.select(what="attention").map, voting.attention.mean((0, 1)), rtol=1e-5)
    np.testing.assert_array_equal(votes.select("all", 1, "votes").map, voting.ballots[:, 1].sum(0))
    assert votes.select("all", 1, "votes").vmax == voting.ballots.sum(0).max()
    assert votes.select().map.sum() == 6 * 2 * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6,), "block must be 0 to 5"),
        ((-1,), "block"),
        ((0, 2), "head must be 0 to 1"),
        (("some",), "block"),
        ((True,), "block"),
        ((1.0,), "block"),
        ((0, 0, "pixels"), "votes, scores, attention"),
    ],
)
def test_unknown_views_are_refused(votes, arguments, message):
    with pytest.raises(UserError, match=message):
        votes.select(*arguments)


def test_activation_has_no_blocks(network):
    explanation = explain(network("resnet18"), torch.randn(3, 64, 96), BOX)
    with pytest.raises(UserError, match="only 'all'"):
        explanation.select(0)
    with pytest.raises(UserError, match="activation"):
        explanation.select(what="votes")


def test_impossible_k(network):
    with pytest.raises(UserError, match="1 to 24"):
        explain(network("test_vit"), torch.randn(3, 64, 96), BOX, k=25)


def test_to_dict_is_json_and_complete(votes, network):
    text = json.loads(json.dumps(votes.to_dict()))
    assert text["kind"] == "votes"
    assert text["grid"] == [4, 6]
    assert text["box"] == list(BOX)
    assert np.array(text["votes"]).shape == (6, 4, 6)
    np.testing.assert_array_equal(text["scores"], votes.voting.scores)
    activation = explain(network("resnet18"), torch.randn(3, 64, 96), BOX)
    text = json.loads(json.dumps(activation.to_dict()))
    assert (text["kind"], text["target"], text["exact"]) == ("activation", activation.activation.target, True)
    np.testing.assert_allclose(text["contributions"], activation.activation.contributions)


def test_maps_lie_where_the_tokens_read():
    """The gradient of one patch token is centred on its cell of the box, for a plain and for a convolutional stem."""
    sides = {"test_vit": {}, "vit_conv_mini_patch16_128": {"channels": [8, 16, 24, 32], "depth": 2, "num_heads": 2}}
    for name, args in sides.items():
        torch.manual_seed(0)
        network = build_classifier(name, num_classes=3, img_size=128, model_args=args).eval()
        image = torch.randn(3, 128, 128, requires_grad=True)
        box = explain(network, image.detach(), (100.0, 50.0, 356.0, 306.0)).box
        embedded = network.encoder.net.patch_embed(image[None])
        (gradient,) = torch.autograd.grad(embedded.reshape(8, 8, -1)[4, 3].sum(), image)
        weight = gradient.square().sum(0)
        x, y = (((weight.sum(axis) * (torch.arange(128) + 0.5)).sum() / weight.sum()).item() for axis in (0, 1))
        # 256 source pixels for 128 of the input; a cell is 32 of the former.
        assert box[0] + 3.5 * 32 == pytest.approx(100 + 2 * x, abs=6), name
        assert box[1] + 4.5 * 32 == pytest.approx(50 + 2 * y, abs=6), name
        assert (box[2] - box[0], box[3] - box[1]) == (256, 256)
    assert box[:2] == (100 - 15, 50 - 15)
