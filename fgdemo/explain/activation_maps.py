"""Class activation maps for models without class-token attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgdemo.errors import UserError
from fgdemo.models.encoder import Encoder


@dataclass(frozen=True)
class ActivationMap:
    """What each place of the last feature map adds to one class's logit.

    contributions: (h, w) float32, signed. Where `exact` (global average pooling and a linear layer) they and the
    classifier's bias sum to `logit`, which is the class activation map of Zhou et al. (CVPR 2016, Eq. 2);
    elsewhere they are Grad-CAM (Selvaraju et al., ICCV 2017, Eqs. 1-2) before its rectifier.
    """

    contributions: np.ndarray
    target: int
    logit: float
    exact: bool

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the feature map."""
        return self.contributions.shape

    def heat(self) -> np.ndarray:
        """What is drawn: evidence for the class, negative contributions set to zero; its scale is 0 to its maximum."""
        return np.maximum(self.contributions, 0)


def activation_map(
    encoder: Encoder,
    image: Tensor,
    *,
    target: int | None = None,
    head: Callable[[Tensor], Tensor] | None = None,
) -> ActivationMap:
    """Class activation map of one preprocessed picture (3, H, W) for class `target`, the predicted one by default.

    `head` maps pooled features (1, D) to logits; without it the encoder's own classifier is explained. The
    channel weights are the mean gradients over the map, which for global average pooling and a linear layer are
    the classifier's own weights. Works inside `torch.inference_mode` too; no parameter gets a gradient.

    Raises:
        UserError: the classifier reads no place of the last map (class-token pooling of a model whose attention
            this project has no adapter for), or `target` is not a class.
    """
    if head is None and encoder.num_classes == 0:
        raise ValueError("an encoder without classifier needs a head")
    net, size = encoder.net, tuple(image.shape[-2:])
    with torch.inference_mode(False), torch.no_grad():
        features = net.forward_features(image.unsqueeze(0))
        maps = encoder.to_map(features, size)[0].float()
    with torch.inference_mode(False), torch.enable_grad():
        features = features.clone().requires_grad_()
        pooled = net.forward_head(features, pre_logits=head is not None)
        logits = (pooled if head is None else head(pooled))[0]
        target = int(logits.argmax()) if target is None else target
        if not 0 <= target < len(logits):
            raise UserError(f"There are classes 0 to {len(logits) - 1}, not {target}.")
        (gradient,) = torch.autograd.grad(logits[target], features)
    slopes = encoder.to_map(gradient, size)[0].float()
    if not slopes.any():
        raise UserError(f"{encoder.name} has neither class-token attention to show nor a map its classifier reads.")
    contributions = (slopes.mean(dim=(1, 2), keepdim=True) * maps).sum(dim=0)
    logit = logits[target].detach().float()
    return ActivationMap(
        contributions=contributions.cpu().numpy(),
        target=target,
        logit=float(logit),
        exact=_explains(contributions.sum(), logit, encoder, head, target),
    )


def _explains(total: Tensor, logit: Tensor, encoder: Encoder, head: Callable | None, target: int) -> bool:
    layer = encoder.net.get_classifier() if head is None else head
    if not isinstance(layer, torch.nn.Linear):
        return False
    bias = layer.bias[target].detach() if layer.bias is not None else torch.zeros_like(logit)
    return bool(torch.isclose(total + bias, logit, rtol=1e-3, atol=1e-4))
