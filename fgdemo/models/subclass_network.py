"""Classes whose logits are made of those of their subclasses, under several numbers of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fgdemo.errors import UserError
from fgdemo.models.encoder_config import encoder_arguments
from fgdemo.models.network import register_network
from fgdemo.models.timm_network import TimmNetwork

_ACTIVE = "active"
"""Name of the buffer among the weights, beside timm's."""


class SubclassOutput(NamedTuple):
    """logits (B, C), embedding (B, D), and subclass_logits (B, C, sum(ks)), -inf where a class has no such column."""

    logits: Tensor
    embedding: Tensor
    subclass_logits: Tensor


def column_slices(ks: Sequence[int]) -> list[tuple[int, slice]]:
    """For each hypothesis: its number of subclasses, and its columns among the sum(ks) of a class."""
    ends = [sum(ks[: position + 1]) for position in range(len(ks))]
    return [(k, slice(end - k, end)) for k, end in zip(ks, ends, strict=True)]


def class_logits(subclass_logits: Tensor, active: Tensor, ks: Sequence[int]) -> Tensor:
    """Logit of each class: the mean over its hypotheses of log-mean-exp over the subclasses of each.

    The mean in place of the sum inside (a constant log K less) keeps classes alike that have different numbers of
    subclasses: equal subclass logits give equal class logits. With ``ks = (1,)`` the column itself comes back, bit by
    bit.

    Args:
        subclass_logits: (B, C, sum(ks)); inactive columns are not looked at.
        active: (C, sum(ks)) bool, for each class columns of one hypothesis at least.

    Returns:
        (B, C) in the precision given.
    """
    if tuple(ks) == (1,):
        return subclass_logits[..., 0]
    total: Tensor | float = 0.0
    hypotheses = torch.zeros(len(active), dtype=subclass_logits.dtype, device=active.device)
    for _, columns in column_slices(ks):
        counts = active[:, columns].sum(1)
        there = counts > 0
        # a class without this hypothesis gets zeros here, whose logarithm of a mean is finite, and no weight below
        part = subclass_logits[..., columns].masked_fill(~active[:, columns] & there[:, None], -torch.inf)
        part = part.masked_fill(~there[:, None], 0).logsumexp(-1) - counts.clamp(min=1).to(part.dtype).log()
        total = total + torch.where(there, part, 0)
        hypotheses = hypotheses + there
    return total / hypotheses


@register_network("subclasses")
class SubclassNetwork(TimmNetwork):
    """A timm model whose classifier has sum(ks) columns a class, one softmax group for each hypothesis K in ks.

    With ``ks = (1,)`` it is `TimmNetwork`: equal weights for a seed, equal logits. `weights()` has timm's keys and
    ``active``.

    Args:
        ks: ascending numbers of subclasses.

    Attributes: `ks`, and the buffer `active` (C, sum(ks)) bool, the columns that stand for a subclass; all at first.

    Raises:
        UserError: numbers of subclasses that are not ascending from 1, or as `TimmNetwork`.
    """

    def __init__(self, architecture: str, *, num_classes: int, ks: Sequence[int], **arguments: Any) -> None:
        ks = check_hypotheses(ks)
        if num_classes < 1:
            raise UserError(f"A classifier needs at least one class, not {num_classes}.")
        super().__init__(architecture, num_classes=num_classes * sum(ks), **arguments)
        self.ks, self.num_classes = ks, num_classes
        self.register_buffer("active", torch.ones(num_classes, sum(ks), dtype=torch.bool))

    def set_active(self, active: Tensor) -> None:
        """Say which columns stand for a subclass, (C, sum(ks)) bool.

        Raises:
            ValueError: another shape, or a class that has none.
        """
        if active.shape != self.active.shape or not active.any(1).all():
            raise ValueError("every class has at least one subclass column")
        self.active.copy_(active)

    def forward(self, images: Tensor) -> SubclassOutput:
        net = self.encoder.net
        features = net.forward_features(images)
        columns = net.forward_head(features).unflatten(1, (self.num_classes, sum(self.ks)))
        return SubclassOutput(
            class_logits(columns, self.active, self.ks),
            net.forward_head(features, pre_logits=True),
            columns.masked_fill(~self.active, -torch.inf),
        )

    def config(self) -> dict[str, Any]:
        return {key: value for key, value in super().config().items() if key != "architecture"}

    def network_args(self) -> dict[str, Any]:
        return {"architecture": super().config()["architecture"], "ks": list(self.ks)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SubclassNetwork:
        given = config["fgdemo"]["network_args"]
        arguments = encoder_arguments({**config, "architecture": given["architecture"]})
        return cls(num_classes=config["num_classes"], ks=given["ks"], **arguments)

    def weights(self) -> dict[str, Tensor]:
        return {**super().weights(), _ACTIVE: self.active.detach().to("cpu", copy=True)}

    def load_weights(self, tensors: dict[str, Tensor], strict: bool = True) -> None:
        active = tensors.get(_ACTIVE)
        if active is not None and (active.dtype != torch.bool or active.shape != self.active.shape):
            raise UserError(f"The tensor {_ACTIVE} is {list(active.shape)} {active.dtype}, not the head's columns.")
        super().load_weights({name: tensor for name, tensor in tensors.items() if name != _ACTIVE}, strict)
        if active is not None:
            self.set_active(active)
        elif strict:
            raise UserError(f"The weights do not fit the network that config.json describes: {_ACTIVE} is missing.")


def check_hypotheses(ks: Sequence[int]) -> tuple[int, ...]:
    """The numbers of subclasses as a tuple.

    Raises:
        UserError: none, or they are not ascending whole numbers from 1.
    """
    ks = tuple(ks)
    whole = all(isinstance(k, int) and not isinstance(k, bool) and k > 0 for k in ks)
    if not ks or not whole or list(ks) != sorted(set(ks)):
        raise UserError(f"The numbers of subclasses are ascending whole numbers from 1, not {list(ks)}.")
    return ks
