"""A classifier that was never trained: any encoder, with the votes of remembered pictures in its classifier's place."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdemo.errors import UserError
from fgdemo.models.encoder import Encoder
from fgdemo.models.neighbour_votes import TEMPERATURE, K, log_votes, neighbourhood
from fgdemo.models.network import NetworkOutput, register_network
from fgdemo.models.timm_network import TimmNetwork


class NeighbourVotes(nn.Module):
    """Features (B, D) -> logits (B, C) by the votes of the memory; float32 whatever the precision around it.

    Attributes: buffers `memory` (N, D) float32 with rows of unit length (to within float16 where it was stored so) and
    `memory_class` (N,) int64; `num_classes`, `k`, `temperature`.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.k, self.temperature = K, TEMPERATURE
        self.register_buffer("memory", torch.zeros(1, dim))
        self.register_buffer("memory_class", torch.zeros(1, dtype=torch.int64))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            # Some of timm's classifiers are convolutions on a map of one place.
            queries = features.flatten(1)
            near = neighbourhood(queries, self.memory, self.memory_class, self.num_classes, self.k)
            return log_votes(near, self.k, self.temperature)


@register_network("neighbours")
class NeighbourNetwork(TimmNetwork):
    """A timm model whose classifier is a `NeighbourVotes`, empty until `remember` fills it.

    The votes stand where timm has its classifier, so that whatever follows a model from its features to its logits,
    such as an activation map, finds them. Every class is equally likely until then.

    Raises:
        UserError: as `TimmNetwork`.
    """

    def __init__(self, architecture: str, *, num_classes: int, **arguments: Any) -> None:
        super().__init__(architecture, num_classes=num_classes, **arguments)
        names = _classifier_names(self.encoder.net)
        votes = NeighbourVotes(self.encoder.dim, num_classes)
        for name in names:
            self.encoder.net.set_submodule(name, votes)

    @classmethod
    def on_encoder(cls, encoder: Encoder, num_classes: int) -> NeighbourNetwork:
        """A network with a copy of an encoder, whatever classifier that has."""
        network = cls(
            encoder.name,
            num_classes=num_classes,
            img_size=encoder.input_size,
            model_args=encoder.model_args,
            data_config=encoder.data_config,
        )
        theirs, ours = (_without_classifier(net) for net in (encoder.net, network.encoder.net))
        votes = {name: t for name, t in network.encoder.net.state_dict().items() if name not in ours}
        network.encoder.net.load_state_dict({**theirs, **votes})
        return network

    @property
    def votes(self) -> NeighbourVotes:
        return self.head_modules()[0]

    def remember(self, memory: Tensor, classes: Tensor, *, k: int, temperature: float) -> None:
        """Let these rows vote from now on, and no others.

        Args:
            memory: (N, D) embeddings of any length, at least one.
            classes: (N,) class ids.
            k: how many of the nearest rows vote; all where there are fewer.
            temperature: above 0, in units of the cosine.

        Raises:
            UserError: a k, a temperature or a class that cannot be.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise UserError(f"The number of neighbours that vote is a whole number of at least 1, not {k!r}.")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < 1e6:
            raise UserError(f"The temperature of the votes is a number above 0, not {temperature!r}.")
        self._check_classes(classes)
        votes = self.votes
        votes.k, votes.temperature = k, float(temperature)
        votes.memory = F.normalize(memory.detach().float(), dim=1).to(votes.memory.device)
        votes.memory_class = classes.long().to(votes.memory.device)

    def forward(self, images: Tensor) -> NetworkOutput:
        embedding = self.encoder(images)
        return NetworkOutput(self.votes(embedding), embedding)

    def new_modules(self) -> tuple[str, ...]:
        return ()

    def config(self) -> dict[str, Any]:
        return {key: value for key, value in super().config().items() if key != "architecture"}

    def network_args(self) -> dict[str, Any]:
        votes = self.votes
        return {
            "architecture": super().config()["architecture"],
            "rows": len(votes.memory),
            "k": votes.k,
            "temperature": votes.temperature,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NeighbourNetwork:
        given = config["fgdemo"]["network_args"]
        network = super().from_config({**config, "architecture": given["architecture"]})
        rows = given["rows"]
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise UserError(f"The memory of a network of neighbours has at least one row, not {rows!r}.")
        memory, classes = torch.zeros(rows, network.encoder.dim), torch.zeros(rows, dtype=torch.int64)
        network.remember(memory, classes, k=given["k"], temperature=given["temperature"])
        return network

    def load_weights(self, tensors: dict[str, Tensor], strict: bool = True) -> None:
        super().load_weights(tensors, strict)
        self._check_classes(self.votes.memory_class)

    def _check_classes(self, classes: Tensor) -> None:
        outside = (classes < 0) | (classes >= self.num_classes)
        if outside.any():
            wrong = int(classes[outside][0])
            raise UserError(
                f"The memory holds a picture of class {wrong}, but there are classes 0 to {self.num_classes - 1}."
            )


def _classifier_names(net: nn.Module) -> tuple[str, ...]:
    """Where timm's classifier is among the modules; distilled models have two."""
    found = net.get_classifier()
    wanted = {id(module) for module in (found if isinstance(found, tuple | list | nn.ModuleList) else (found,))}
    return tuple(name for name, module in net.named_modules(remove_duplicate=False) if id(module) in wanted)


def _without_classifier(net: nn.Module) -> dict[str, Tensor]:
    prefixes = tuple(f"{name}." for name in _classifier_names(net))
    return {name: tensor for name, tensor in net.state_dict().items() if not name.startswith(prefixes)}
