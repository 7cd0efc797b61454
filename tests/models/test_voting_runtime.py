"""The voting network at work: checkpoints, sizes, precision, waiting for devices, memory, freezing."""

from __future__ import annotations

import copy
import gc
import json

import pytest
import torch
import torch.nn.functional as F
from support.plain_voting import plain_voting
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fgdemo.errors import UserError
from fgdemo.models import build_from_config
from fgdemo.models.votes import head_votes

SIZE = (64, 96)


def rebuilt(network):
    config = network.config() | {"fgdemo": {"network": "voting", "network_args": network.network_args()}}
    return build_from_config(json.loads(json.dumps(config))).eval()


@torch.no_grad()
def test_config_and_weights_rebuild_the_network(voting_case, build_voting):
    """To the last bit, quotas that have moved among them."""
    network, images = build_voting(*voting_case, dilations=(1, 3), merger=True, kernel="learned")
    before = network(images).logits
    for _ in range(3):
        network.quotas.update(torch.tensor([9, 1]), rate=0.5, after=0)
    assert network.quotas.quota.tolist() != [4, 4] or network.settings.candidates != 8
    again = rebuilt(network)
    again.load_weights(network.weights())
    assert again.settings == network.settings
    assert again.encoder.data_config == network.encoder.data_config
    assert again.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in again.state_dict().items())
    for ours, theirs in zip(network(images), again(images), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(network(images).logits, before), "quotas that do not count would prove nothing"
    assert "architecture" not in network.config(), "stock timm does not know it"


def test_quotas_that_do_not_fit_are_refused(build_voting):
    network, _ = build_voting("test_vit")
    weights = network.weights()
    with pytest.raises(UserError, match=r"missing quotas\.rates"):
        network.load_weights({key: value for key, value in weights.items() if key != "quotas.rates"})


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_reg4_dinov2", "eva02_tiny_patch14_224"])
def test_trains_in_bfloat16_with_votes_from_float32_rows(build_voting, name):
    network, images = build_voting(name, kernel="learned", merger=True, candidate_norm=True)
    network.train()
    targets = torch.tensor([0, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, trace = network.trace(images)
        loss = F.cross_entropy(output.logits, targets) + F.cross_entropy(output.cross_logits, targets)
    loss.backward()
    assert loss.isfinite()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.dtype == torch.float32
    assert trace.rows.dtype == trace.scores.dtype == torch.float32
    assert not torch.equal(trace.rows, trace.rows.bfloat16().float()), "rounded before the votes"
    assert torch.equal(trace.votes, head_votes(trace.rows, network.settings.votes))
    network.eval()
    # Rounding may flip a pick, and with it a picture's logits, but not those of most pictures.
    images = torch.randn(16, *images.shape[1:])
    with torch.no_grad():
        exact = network(images).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = network(images).logits
    assert F.cosine_similarity(exact, rounded, dim=1).median() > 0.99


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_precision(build_voting, dtype):
    network, images = build_voting("test_vit", SIZE, kernel="learned", merger=True, layer_embedding=True)
    output, trace = network.to(dtype).trace(images.to(dtype))
    assert output.logits.dtype == dtype
    assert output.logits.isfinite().all()
    assert trace.votes.sum() == 2 * 2 * network.encoder.num_heads * network.settings.votes


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_reg4_dinov2", "eva02_tiny_patch14_224"])
@pytest.mark.parametrize("grid", [(3, 2), (9, 5)])
def test_pictures_of_other_sizes(build_voting, name, grid):
    """Fewer and more patches than it was built for; quotas that a small grid cannot give go to other blocks."""
    patch = 14 if "14" in name else 16
    size = (4 * patch, 4 * patch)
    network, _ = build_voting(name, size, model_args={"dynamic_img_size": True}, candidates=10, merger=True)
    network.quotas.rates.copy_(torch.tensor([0.95, 0.05]))
    network.quotas.update(torch.tensor([1, 1]), rate=0.0, after=0)
    assert network.quotas.quota.tolist() == [9, 1]
    images = torch.randn(2, 3, grid[0] * patch, grid[1] * patch)
    output, trace = network.trace(images)
    assert trace.quotas.tolist() == ([6, 4] if grid == (3, 2) else [9, 1])
    assert trace.rows.shape[-1] == grid[0] * grid[1]
    for block in range(2):
        assert all(len(set(places.tolist())) == len(places) for places in trace.position[:, trace.block == block])
    if grid == (9, 5):
        plain = plain_voting(network, images)
        torch.testing.assert_close(output.logits, plain.logits, rtol=1e-3, atol=1e-3)
        assert output.picked.tolist() == plain.picked


@torch.no_grad()
def test_pictures_too_small_are_refused(build_voting):
    network, _ = build_voting("test_vit", 64, model_args={"dynamic_img_size": True}, votes=3, candidates=10)
    with pytest.raises(UserError, match="votes for 3 patches, but a picture of this size has 2"):
        network(torch.randn(1, 3, 16, 32))
    with pytest.raises(UserError, match="cannot contribute 10 candidates"):
        network(torch.randn(1, 3, 32, 32))


class AsOnAnAccelerator(TorchDispatchMode):
    """Notes what would make the host wait for a device, or what some devices do not have (float64)."""

    waits = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "bincount", "equal", "lift_fresh")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        masks = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        wide = any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(result))
        if name in self.waits or masks or wide:
            self.found.append(str(func))
        return result


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"merger": True, "ties": "attention", "kernel": "learned", "layer_embedding": True},
        {"weights": "attention", "combine": "product", "border": "normalised", "candidate_norm": True},
        {"selection": "random", "merger": True},
        {"selection": "attention"},
        {"selection": "class-token"},
    ],
    ids=str,
)
def test_no_pass_and_no_update_waits_for_the_device(build_voting, settings, training):
    arguments = {"model_args": {"dynamic_img_size": True}, "candidates": 20, **settings}
    network, images = build_voting("vit_small_patch14_reg4_dinov2", (84, 84), **arguments)
    network.train(training)
    picks = torch.tensor([3, 1])
    with AsOnAnAccelerator() as seen:
        network(images)
        network(images[..., :56])
        network.quotas.update(picks, rate=0.1, after=0)
        network.quotas.entropy()
    assert seen.found == []
    with AsOnAnAccelerator() as seen:
        network.quotas.check()
        images.double()
    assert len(seen.found) > 1, "it sees nothing"


def live_tensors(shape):
    """Distinct memories of tensors of this shape."""
    found = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor and thing.shape == shape]
    return len({tensor.untyped_storage().data_ptr() for tensor in found})


@torch.no_grad()
def test_no_block_is_kept_unless_traced(build_voting):
    """When the pool is refined, of all blocks' outputs and rows none is there any more, but the last for its token."""
    args = {"depth": 6}
    network, images = build_voting("vit_small_patch14_reg4_dinov2", (84, 56), model_args=args, dilations=(1, 2))
    row = (2, network.encoder.num_heads, 24)
    tokens = (2, 5 + 24, network.encoder.dim)
    kept = []
    network.refine_block.register_forward_pre_hook(
        lambda module, args: kept.append((live_tensors(row), live_tensors(tokens)))
    )
    embedding = network(images).embedding
    network.trace(images)
    assert embedding.untyped_storage().nbytes() == 4 * embedding.numel(), "it keeps its whole sequence alive"
    (rows, outputs), (traced, _) = kept
    assert rows == 0
    assert outputs <= 1
    assert traced == network.encoder.num_blocks == 5


def test_frozen_encoder_trains_the_new_modules_alone(build_voting):
    network, images = build_voting("vit_tiny_r_s16_p8_224", layer_embedding=True, kernel="learned")
    network.freeze_encoder()
    network.train()
    assert not any(module.training for module in network.encoder.modules())
    assert network.key_block.training
    before = copy.deepcopy(network.encoder.state_dict())
    output = network(images)
    (output.logits.square().mean() + output.cross_logits.square().mean()).backward()
    for key, parameter in network.named_parameters():
        assert parameter.requires_grad != key.startswith("encoder."), key
        assert (parameter.grad is not None) == parameter.requires_grad, key
    assert all(torch.equal(value, before[key]) for key, value in network.encoder.state_dict().items())
