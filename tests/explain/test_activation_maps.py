"""Contributions of places to a logit: exact where that is possible, faithful in sign and place elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fgdemo.errors import UserError
from fgdemo.explain.activation_maps import activation_map

EXACT = {
    "resnet18": {},
    "test_efficientnet": {},
    "swin_tiny_patch4_window7_224": {"depths": [1, 1, 1, 1], "embed_dim": 24},
}
NEAR = {"test_convnext": {}, "mobilenetv3_small_050": {}}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("target", [0, 3])
def test_contributions_and_bias_sum_to_the_logit(network, name, target):
    net = network(name, (96, 64), **EXACT[name])
    image = torch.randn(3, 96, 64)
    result = activation_map(net.encoder, image, target=target)
    with torch.no_grad():
        logits = net(image[None]).logits[0]
    bias = net.encoder.net.get_classifier().bias[target].item()
    assert result.exact
    assert result.grid == (3, 2)
    assert result.logit == pytest.approx(logits[target].item(), rel=1e-5)
    assert result.contributions.sum() + bias == pytest.approx(result.logit, rel=1e-4, abs=1e-4)


@torch.no_grad()
def test_equals_the_class_activation_map_of_zhou(network):
    net = network("resnet18")
    image = torch.randn(3, 64, 96)
    result = activation_map(net.encoder, image)
    features = net.encoder.net.forward_features(image[None])[0]
    weight = net.encoder.net.fc.weight[result.target]
    expected = torch.einsum("d,dhw->hw", weight, features) / features[0].numel()
    assert result.target == int(net(image[None]).logits.argmax())
    np.testing.assert_allclose(result.contributions, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NEAR)
def test_equals_grad_cam_where_the_head_is_not_linear(network, name):
    """Against Grad-CAM written with a backward hook on the last map."""
    net = network(name, **NEAR[name])
    image = torch.randn(3, 64, 96)
    result = activation_map(net.encoder, image, target=2)
    features = net.encoder.net.forward_features(image[None])
    features.retain_grad()
    net.encoder.net.forward_head(features)[0, 2].backward()
    expected = (features.grad.mean((2, 3), keepdim=True) * features).sum(1)[0].detach().numpy()
    assert not result.exact
    np.testing.assert_allclose(result.contributions, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.heat(), expected.clip(min=0), rtol=1e-4, atol=1e-6)


def test_the_place_that_carries_the_class_is_found(network):
    """A classifier that reads only the channel that is active in one corner points at that corner."""
    net = network("resnet18")
    image = torch.randn(3, 64, 96)
    inner = net.encoder.net
    with torch.no_grad():
        features = inner.forward_features(image[None])[0]
        corner = features[:, 0, 2] - features.flatten(1).mean(1)
        inner.fc.weight[1] = corner
    contributions = activation_map(net.encoder, image, target=1).contributions
    assert np.unravel_index(contributions.argmax(), contributions.shape) == (0, 2)


def test_no_parameter_is_touched_and_inference_mode_is_no_obstacle(network):
    net = network("resnet18")
    image = torch.randn(3, 64, 96)
    outside = activation_map(net.encoder, image)
    with torch.inference_mode():
        inside = activation_map(net.encoder, image * 1)
    np.testing.assert_array_equal(outside.contributions, inside.contributions)
    assert all(p.grad is None for p in net.parameters())


def test_another_head_on_the_pooled_features(network):
    net = network("resnet18")
    image = torch.randn(3, 64, 96)
    head = torch.nn.Linear(net.encoder.dim, 9)
    result = activation_map(net.encoder, image, target=8, head=head)
    with torch.no_grad():
        logit = head(net.encoder(image[None]))[0, 8].item()
    assert result.exact
    assert result.logit == pytest.approx(logit, rel=1e-5)
    assert result.contributions.sum() + head.bias[8].item() == pytest.approx(logit, rel=1e-4, abs=1e-4)


def test_average_pooled_tokens_have_a_map(network):
    net = network("test_vit", class_token=False, global_pool="avg", fc_norm=False)
    result = activation_map(net.encoder, torch.randn(3, 64, 96))
    assert result.grid == (4, 6)
    assert result.exact


def test_a_classifier_that_reads_no_place_is_refused(network):
    beit = network("beit_base_patch16_224", depth=1, embed_dim=48, num_heads=3, global_pool="token")
    with pytest.raises(UserError, match="neither"):
        activation_map(beit.encoder, torch.randn(3, 64, 96))


@pytest.mark.parametrize("target", [-1, 5])
def test_target_out_of_range(network, target):
    with pytest.raises(UserError, match="0 to 4"):
        activation_map(network("resnet18").encoder, torch.randn(3, 64, 96), target=target)
