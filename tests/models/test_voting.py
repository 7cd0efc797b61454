"""The voting network against plain loops over timm's materialised attention, and its parts by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from support.plain_voting import plain_voting

from fgdemo.errors import UserError
from fgdemo.models.candidates import Pool
from fgdemo.models.encoder import Encoder
from fgdemo.models.enhancement import Enhancement, gate
from fgdemo.models.quotas import Quotas
from fgdemo.models.voting import VotingNetwork
from fgdemo.models.voting_settings import VotingSettings

# (h, w) = (4, 6) patches, enough of them for every choice to matter.
SIZE = (64, 96)
VARIANTS = [
    {},
    {"weights": "attention"},
    {"weights": "attention", "ties": "attention", "merger": True},
    {"dilations": (1,)},
    {"dilations": (3, 1), "combine": "mean"},
    {"combine": "product"},
    {"border": "normalised"},
    {"combine": "mean", "border": "normalised", "weights": "attention"},
    {"kernel": "learned", "merger": True},
    {"kernel": "learned", "border": "normalised", "combine": "mean"},
    {"kernel": "learned", "combine": "product"},
    {"ties": "attention"},
    {"merger": True, "layer_embedding": True},
    {"merger": True, "candidate_norm": True, "final_votes": 7},
    {"key_block": False},
    {"assist": False, "key_token": "refined"},
    {"candidate_norm": True, "key_token": "refined"},
    {"candidate_norm": True, "layer_embedding": True},
    {"selection": "attention", "merger": True},
    {"selection": "class-token", "candidate_norm": True},
    {"selection": "class-token", "key_block": False},
    {"rates": "v", "quota_floor": 0, "candidates": 9},
    {"votes": 24, "candidates": 48, "refined": 48, "final_votes": 48},
    {"votes": 1, "candidates": 2, "refined": 1, "final_votes": 1, "merger": True},
]


def assert_equals_plain_loops(network, images):
    with torch.no_grad():
        output, trace = network.trace(images)
        forward = network(images)
    plain = plain_voting(network, images)
    h, w = network.encoder.grid_of(images.shape[-2:])
    blocks, heads = network.encoder.num_blocks, network.encoder.num_heads
    assert trace.rows.shape == (2, blocks, heads, h * w)
    torch.testing.assert_close(trace.votes.double(), torch.tensor(plain.votes).double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(trace.scores.double(), torch.tensor(plain.scores).double(), rtol=1e-4, atol=1e-4)
    assert trace.refined.tolist() == plain.refined
    assert output.picked.tolist() == plain.picked
    if network.pool_size:
        places = [list(zip(trace.block.tolist(), patches, strict=True)) for patches in trace.position.tolist()]
        assert places == plain.candidates
        expected = torch.tensor(plain.final_votes).double()
        torch.testing.assert_close(trace.final_votes.double(), expected, rtol=1e-5, atol=1e-5)
        assert trace.score.tolist() == [
            [trace.scores[i, block, patch].item() for block, patch in chosen]
            for i, chosen in enumerate(plain.candidates)
        ]
    for ours, theirs in (
        (output.logits, plain.logits),
        (output.cross_logits, plain.cross_logits),
        (output.embedding, plain.embedding),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    for traced, plainly in zip(output, forward, strict=True):
        assert torch.equal(traced, plainly), "the trace is not what the forward pass used"


def test_whole_method_on_every_architecture(voting_case, build_voting):
    network, images = build_voting(*voting_case, merger=True, layer_embedding=True)
    assert_equals_plain_loops(network, images)


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_every_variant(build_voting, settings):
    network, images = build_voting("vit_small_patch14_reg4_dinov2", (56, 84), **settings)
    assert_equals_plain_loops(network, images)


def test_candidates_are_the_voted_patches_themselves(voting_case, build_voting):
    """Every token is marked with its place before anything reads it: no place is off by one, no prefix gets in."""
    network, images = build_voting(*voting_case, merger=True)
    prefix = network.encoder.num_prefix_tokens

    def mark(block, number):
        def hook(module, args, tokens):
            tokens = tokens.clone()
            tokens[..., 0] = torch.arange(tokens.shape[1]) - prefix
            tokens[..., 1] = number
            return tokens

        block.register_forward_hook(hook, prepend=True)

    for number, block in enumerate(network.encoder.net.blocks):
        mark(block, number)
    seen = []
    network.refine_block.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        output, trace = network.trace(images)
    sequence, total = seen[0], network.settings.candidates
    assert sequence.shape[1] == 1 + network.pool_size == 1 + total + 2
    assert torch.equal(sequence[:, 1 : 1 + total, 0].long(), trace.position)
    assert torch.equal(sequence[:, 1 : 1 + total, 1].long(), trace.block.expand(2, -1))
    assert sequence[:, 0, :2].tolist() == [[-prefix, 1]] * 2, "the class token of the last block comes first"
    assert sequence[:, 1 + total :, 1].tolist() == [[0, 1]] * 2, "then one merged token of each block"
    pool_block = torch.cat([trace.block, torch.arange(2)])
    assert torch.equal(output.picked, pool_block[trace.refined])
    assert trace.rank.tolist() == [rank for quota in trace.quotas.tolist() for rank in range(quota)]


def pool_of(row, tokens, *, rank, grid, **settings):
    """One block of a pool after one picture: row (H, N), tokens (N, D)."""
    chosen = VotingSettings(votes=1, candidates=len(rank), refined=1, final_votes=1, dilations=(1,), **settings)
    enhancement = Enhancement((1,), combine="max", border="zero", kernel=chosen.kernel)
    rank = torch.tensor(rank)
    pool = Pool(chosen, enhancement, torch.zeros_like(rank), rank, grid, 1, random_order=None)
    return pool, lambda: pool.add(row[None], torch.cat([torch.full((1, tokens.shape[1]), 99.0), tokens])[None])


def test_merged_token_by_hand():
    """One head votes for patch 1 of five in a row: scores 2 4 2 0 0; with two selected, patch 2 alone has weight."""
    row, tokens = torch.tensor([[0.0, 9, 0, 0, 0]]), torch.tensor([[1.0], [10], [100], [1000], [10000]])
    pool, add = pool_of(row, tokens, rank=[0], grid=(1, 5), merger=True)
    add()
    assert pool.tokens.tolist() == [[[10]]]
    assert pool.merged[0].tolist() == [[(2 * 1 + 2 * 100) / 4]]
    assert pool.class_token.tolist() == [[99]]


def test_merged_token_of_patches_without_a_score_is_their_mean():
    row, tokens = torch.tensor([[0.0, 9, 0, 0, 0]]), torch.tensor([[1.0], [10], [100], [1000], [10000]])
    pool, add = pool_of(row, tokens, rank=[0, 1, 2], grid=(1, 5), merger=True)
    add()
    assert pool.tokens.flatten().tolist() == [10, 1, 100], "equal scores: the lowest index first"
    assert pool.merged[0].tolist() == [[5500]]


def test_merged_token_counts_negative_scores_of_a_learned_filter_as_zero():
    row, tokens = torch.tensor([[0.0, 9, 0, 0, 0]]), torch.tensor([[1.0], [10], [100], [1000], [10000]])
    pool, add = pool_of(row, tokens, rank=[0], grid=(1, 5), merger=True, kernel="learned")
    with torch.no_grad():
        pool.enhancement.base[0] = torch.tensor([[0.0, 0, 0], [-3, 6, 1], [0, 0, 0]])
        add()
        assert pool.merged[-1].tolist() == [[1]], "of the scores 1 6 -3 0 0, patch 0 alone is left with weight"
        pool.enhancement.base.neg_()
        pool.depth = 0
        add()
    assert pool.merged[-1].tolist() == [[11011 / 4]], "of -1 -6 3 0 0 none is left with weight"


def test_no_merged_token_where_all_patches_are_selected():
    row, tokens = torch.tensor([[0.0, 9]]), torch.tensor([[1.0], [10]])
    pool, add = pool_of(row, tokens, rank=[0, 1], grid=(1, 2), merger=True)
    add()
    assert pool.merged[0].tolist() == [[0]]


def test_gate_is_exactly_one_and_its_gradient_is_the_share_of_the_largest_score():
    scores = torch.tensor([[0.3, -8.0, 2.0, 0.7]])
    chosen = scores[:, [0, 2, 3]].requires_grad_()
    factors = gate(chosen, scores)
    assert factors.tolist() == [[1, 1, 1]]
    factors.backward(torch.tensor([[1.0, 2, 3]]))
    assert chosen.grad.tolist() == [[1 / 8, 2 / 8, 3 / 8]]


def test_a_learned_filter_changes_no_value_at_first_and_is_trained(build_voting):
    """It starts as the published filter, and its gate multiplies by one, with and without gradients."""
    fixed, images = build_voting("test_vit", SIZE)
    learned, _ = build_voting("test_vit", SIZE, kernel="learned")
    missing = learned.load_state_dict(fixed.state_dict(), strict=False).missing_keys
    assert sorted(missing) == ["enhancement.base", "enhancement.bias"]
    with torch.no_grad():
        learned.enhancement.base.copy_(torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]))
        learned.enhancement.bias.zero_()
        assert torch.equal(learned(images).logits, fixed(images).logits)
    logits = learned(images).logits
    assert torch.equal(logits, fixed(images).logits)
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert (learned.enhancement.base.grad != 0).any(dim=(1, 2)).any()
    assert learned.enhancement.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "eva02_tiny_patch14_224", "vit_small_patch16_dinov3"])
def test_new_blocks_are_copies_of_the_last_block_or_new(tmp_path, name):
    """And the trunk is that of the weights, to the last value."""
    arguments = {"img_size": 56 if "14" in name else 64, "model_args": {"depth": 3, "embed_dim": 48, "num_heads": 3}}
    untrained = Encoder(name, **arguments).net
    trained = {key: torch.randn_like(value) for key, value in untrained.state_dict().items()}
    save_file(trained, tmp_path / "trained.safetensors")
    arguments |= {"weights": str(tmp_path / "trained.safetensors"), "num_classes": 5}
    copied = VotingNetwork(name, **arguments)
    assert copied.encoder.num_blocks == 2
    for block in (copied.refine_block, copied.key_block):
        assert all(torch.equal(value, trained[f"blocks.2.{key}"]) for key, value in block.state_dict().items())
    assert copied.refine_block is not copied.key_block
    last = "norm" if "norm.weight" in trained else "fc_norm"
    for norm in (copied.refine_norm, copied.key_norm):
        assert all(torch.equal(value, trained[f"{last}.{key}"]) for key, value in norm.state_dict().items())
    assert copied.refine_norm is not copied.key_norm
    assert all(torch.equal(value, trained[key]) for key, value in copied.encoder.net.state_dict().items())
    assert {"refine_block", "key_block", "refine_norm", "key_norm", "head"} <= set(copied.new_modules())

    fresh = VotingNetwork(name, **arguments, settings={"new_blocks": "random"})
    assert bool((fresh.refine_norm.weight == 1).all() and (fresh.key_norm.bias == 0).all())
    expected = untrained.blocks[-1].state_dict()
    for key, value in fresh.refine_block.state_dict().items():
        assert not torch.equal(value, trained[f"blocks.2.{key}"]), f"{key} is that of the trained block"
        if value.ndim == 1 and not key.endswith("bias"):
            torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["test_vit", "vit_mini_r10_s8_96", "eva02_tiny_patch14_224"])
def test_a_classifier_of_as_many_classes_is_kept(tmp_path, name):
    arguments = {"img_size": 56 if "14" in name else 64, "model_args": {"depth": 3}}
    trained = Encoder(name, **arguments, num_classes=5).net.state_dict()
    trained = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in trained.items()}
    save_file(trained, tmp_path / "trained.safetensors")
    arguments["weights"] = str(tmp_path / "trained.safetensors")
    kept = VotingNetwork(name, **arguments, num_classes=5)
    assert torch.equal(kept.head.weight, trained["head.weight"])
    assert torch.equal(kept.head.bias, trained["head.bias"])
    assert "refine_norm" in kept.new_modules()
    assert "head" not in kept.new_modules()
    assert not any(key.startswith("head") for key in kept.encoder.net.state_dict())
    other = VotingNetwork(name, **arguments, num_classes=4)
    zero = VotingNetwork(name, **arguments, num_classes=5, settings={"zero_head": True})
    assert other.head.weight.shape[0] == 4
    assert not zero.head.weight.any()
    assert not zero.head.bias.any()
    assert all("head" in network.new_modules() for network in (other, zero))


def test_nothing_is_new_on_top_of_an_encoder_with_random_weights(build_voting):
    assert build_voting("test_vit")[0].new_modules() == ()


def test_zero_head_starts_at_the_loss_of_a_guess(build_voting):
    network, images = build_voting("test_vit", scramble=False, zero_head=True)
    output = network(images)
    assert not output.logits.any()
    assert not output.cross_logits.any()
    loss = F.cross_entropy(output.logits, torch.tensor([0, 3]))
    assert loss.item() == pytest.approx(math.log(5))
    loss.backward()
    assert network.head.weight.grad.abs().sum() > 0


def test_assistance_by_hand(build_voting):
    network, images = build_voting("test_vit")
    with torch.no_grad():
        output = network(images)
    for logits, key, cross in zip(output.logits, output.key_logits, output.cross_logits, strict=True):
        shares = [math.exp(value) for value in cross.tolist()]
        for c in range(5):
            row_sum = sum(network.head.weight[c].tolist())
            assert logits[c].item() == pytest.approx(key[c].item() + shares[c] / sum(shares) * row_sum, abs=1e-4)
    torch.testing.assert_close(output.key_logits, network.head(output.embedding))
    assert output.class_token.shape == output.embedding.shape == (2, network.encoder.dim)


@pytest.mark.parametrize(
    ("name", "args", "settings", "message"),
    [
        ("resnet18", {}, {}, "no attention heads to vote"),
        ("test_vit", {"depth": 1}, {}, "at least two blocks"),
        ("test_vit", {"class_token": False, "global_pool": "avg"}, {}, "no attention heads to vote"),
        ("test_vit", {}, {"votes": 17}, "1 to 16 patches, not 17"),
        ("test_vit", {"depth": 3}, {"candidates": 33}, "2 blocks cannot contribute 33 candidates"),
        ("test_vit", {"depth": 3}, {"candidates": 6, "quota_floor": 4}, "at least 4"),
        ("test_vit", {"depth": 3}, {"selection": "best"}, "selection is one of"),
    ],
)
def test_refusals(name, args, settings, message):
    with pytest.raises(UserError, match=message):
        VotingNetwork(name, num_classes=5, img_size=64, model_args=args, settings=settings)


def test_a_classifier_needs_a_class():
    with pytest.raises(UserError, match="at least one class"):
        VotingNetwork("test_vit", num_classes=0, img_size=64)


def test_impossible_quotas_of_a_checkpoint_are_refused(build_voting):
    network, _ = build_voting("test_vit")
    for quota in ([9, -1], [8, 8], [0, 0]):
        weights = network.weights() | {"quotas.quota": torch.tensor(quota)}
        with pytest.raises(UserError, match="impossible quotas"):
            network.load_weights(weights)
    with pytest.raises(UserError, match="impossible quotas"):
        network.load_weights(network.weights() | {"quotas.rates": torch.tensor([float("nan"), 1])})
    assert isinstance(network.quotas, Quotas)
