"""Every choice of a voting network matters, leaves no parameter without a gradient, and the controls are controls."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F

from fgdemo.models.votes import mean_attention, ranking
from fgdemo.models.voting import VotingNetwork
from fgdemo.models.voting_settings import VotingSettings

NAME, SIZE = "vit_small_patch14_reg4_dinov2", (56, 84)
# field -> what is changed from the defaults on a grid of 4 x 6 patches, and on top of what
CHANGES = {
    "votes": (7, {}),
    "candidates": (10, {"refined": 4, "final_votes": 4}),
    "refined": (3, {"final_votes": 4}),
    "final_votes": (2, {}),
    "selection": ("attention", {}),
    "weights": ("attention", {}),
    "dilations": ((1,), {}),
    "combine": ("mean", {}),
    "border": ("normalised", {}),
    "kernel": ("learned", {}),
    "ties": ("attention", {}),
    "merger": (True, {}),
    "key_block": (False, {}),
    "assist": (False, {}),
    "key_token": ("refined", {}),
    "candidate_norm": (True, {}),
    "layer_embedding": (True, {}),
    "rates": ("v", {"candidates": 9}),
    "quota_floor": (4, {"rates": "v", "candidates": 12}),
}
# What only decides where training starts, and the test that shows it.
BEGINNINGS = {
    "new_blocks": "test_new_blocks_are_copies_of_the_last_block_or_new",
    "zero_head": "test_zero_head_starts_at_the_loss_of_a_guess",
}


def build(settings, name=NAME, size=SIZE, depth=4, **model_args):
    """A network whose parameters depend on their names and shapes alone."""
    args = {"depth": depth, "embed_dim": 48, "num_heads": 3, **model_args}
    network = VotingNetwork(name, num_classes=5, img_size=size, model_args=args, settings=settings).eval()
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network


def test_every_setting_has_a_case():
    assert set(CHANGES) | set(BEGINNINGS) == {field.name for field in fields(VotingSettings)}


@torch.no_grad()
@pytest.mark.parametrize("field", CHANGES)
def test_every_setting_changes_the_output(field):
    value, common = CHANGES[field]
    one, other = build(common), build({**common, field: value})
    assert getattr(one.settings, field) != getattr(other.settings, field)
    rest = {name: getattr(one.settings, name) for name in CHANGES if name != field}
    changed = {name for name, before in rest.items() if getattr(other.settings, name) != before}
    assert not changed, "more than one setting differs"
    images = torch.randn(8, 3, *SIZE)
    assert not torch.allclose(one(images).logits, other(images).logits, atol=1e-3)


def losses(network, images):
    output = network(images)
    targets = torch.arange(len(images)) % 5
    return F.cross_entropy(output.logits, targets) + F.cross_entropy(output.cross_logits, targets)


def without_gradient(network, images):
    network.train()
    losses(network, images).backward()
    return [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]


def test_no_combination_leaves_a_parameter_without_a_gradient():
    """Processes that train together would wait for it for ever."""
    table = {
        "selection": ("votes", "random", "attention", "class-token"),
        "kernel": ("fixed", "learned"),
        "merger": (False, True),
        "key_block": (True, False),
        "key_token": ("trunk", "refined"),
        "layer_embedding": (False, True),
    }
    images = torch.randn(2, 3, 28, 28)
    for places in itertools.product(*(range(len(values)) for values in table.values())):
        settings = {name: values[place] for (name, values), place in zip(table.items(), places, strict=True)}
        # A half of the full factorial design: any five choices still come together in every way.
        settings["candidate_norm"] = bool(sum(places) % 2)
        network = build(settings, size=28, depth=2, embed_dim=8, num_heads=2)
        assert without_gradient(network, images) == [], settings


@pytest.mark.parametrize("combine", ["max", "mean", "product"])
@pytest.mark.parametrize("border", ["zero", "normalised"])
@pytest.mark.parametrize("weights", ["equal", "attention"])
def test_gradients_of_a_learned_filter_are_finite(combine, border, weights):
    """Also of patches far from every vote, whose scores are zero."""
    settings = {"kernel": "learned", "combine": combine, "border": border, "weights": weights, "votes": 1}
    network = build({**settings, "dilations": (1, 2), "merger": True})
    with torch.no_grad():
        network.enhancement.base.abs_()
        network.enhancement.bias.zero_()
    assert without_gradient(network, torch.randn(2, 3, *SIZE)) == []
    assert network.enhancement.base.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vit_pe_core_tiny_patch16_384", {}),
        ("vit_small_patch16_rope_mixed_224", {}),
        ("deit_tiny_distilled_patch16_224", {}),
        ("test_vit", {"global_pool": "avg"}),
        ("test_vit", {"global_pool": "map"}),
    ],
)
def test_no_part_of_an_encoder_is_left_without_a_gradient(name, args):
    """Pooling by attention, final norms and a second head are what a trunk does not use."""
    network = build({}, name, 64, 3, **args)
    assert without_gradient(network, torch.randn(2, 3, 64, 64)) == []
    network.encoder.net.forward_head(network.encoder.net.forward_features(torch.randn(1, 3, 64, 64)))


@torch.no_grad()
def test_random_selection_is_fixed_in_evaluation_and_fresh_in_training():
    network = build({"selection": "random"})
    first, second = torch.randn(2, 2, 3, *SIZE)
    positions = network.trace(first)[1].position
    assert torch.equal(positions, network.trace(second)[1].position)
    assert torch.equal(positions[0], positions[1])
    assert torch.equal(network(first).logits, network(first).logits)
    network.train()
    found = [network.trace(first)[1] for _ in range(2)]
    assert not torch.equal(found[0].position, found[1].position)
    assert not torch.equal(found[0].position[0], found[0].position[1])
    assert not torch.equal(found[0].refined, found[1].refined)


@torch.no_grad()
@pytest.mark.parametrize("size", [SIZE, (140, 140)])
def test_random_selection_is_uniform_and_differs_by_block(size):
    """Over fixed orders of many blocks each patch comes among the first quarter about as often as any."""
    network = build({"selection": "random"}, size=size, depth=2)
    n = network.patches[0] * network.patches[1]
    orders = torch.cat([network._random_order(block, torch.zeros(1, n)) for block in range(200)])
    assert all(order.unique().numel() == n for order in orders)
    chosen = torch.zeros(200, n).scatter(1, orders[:, : n // 4], 1)
    share = chosen.mean(0)
    assert (share - 0.25).abs().max() < 5 * (0.25 * 0.75 / 200) ** 0.5
    overlap = (chosen[:-1] * chosen[1:]).sum(1).mean() / (n // 4)
    assert overlap == pytest.approx(0.25, abs=0.05)


@torch.no_grad()
@pytest.mark.parametrize("selection", ["random", "attention"])
def test_controls_have_the_budget_of_voting(selection):
    """As many tokens from the same blocks, each patch at most once a block, and as many survivors."""
    voting, control = build({"merger": True}), build({"merger": True, "selection": selection})
    images = torch.randn(2, 3, *SIZE)
    (ours, votes), (theirs, chosen) = voting.trace(images), control.trace(images)
    assert torch.equal(votes.quotas, chosen.quotas)
    assert torch.equal(votes.block, chosen.block)
    assert voting.pool_size == control.pool_size == chosen.final_votes.shape[1]
    assert ours.picked.shape == theirs.picked.shape
    for picture in chosen.position:
        assert len({*zip(chosen.block.tolist(), picture.tolist(), strict=True)}) == len(picture)
    assert all(len(set(refined)) == len(refined) for refined in chosen.refined.tolist())
    assert not torch.equal(votes.position, chosen.position)
    assert torch.equal(votes.votes[:, 0], chosen.votes[:, 0]), "votes are counted all the same"


@torch.no_grad()
def test_attention_selects_the_highest_mean_attention():
    network = build({"selection": "attention"})
    _, trace = network.trace(torch.randn(2, 3, *SIZE))
    order = ranking(mean_attention(trace.rows))
    assert torch.equal(trace.position, order[:, trace.block, trace.rank])


@torch.no_grad()
def test_class_token_alone_meets_no_patch():
    network = build({"selection": "class-token", "merger": True, "layer_embedding": True})
    lengths = []
    for block in (network.refine_block, network.key_block):
        block.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
    output, trace = network.trace(torch.randn(2, 3, *SIZE))
    assert lengths == [1, 1]
    assert network.pool_size == 0
    assert output.picked.shape == trace.refined.shape == trace.final_votes.shape == (2, 0)
    assert trace.votes.sum() == 2 * 3 * 3 * network.settings.votes, "the maps are there for comparison"
