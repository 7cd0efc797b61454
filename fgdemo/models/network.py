"""Networks that methods train and checkpoints hold, and the registry of their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from fgdemo.errors import UserError
from fgdemo.models.encoder import Encoder
from fgdemo.models.weights_file import describe_mismatch


class NetworkOutput(NamedTuple):
    """logits (B, C) and embedding (B, D): the pooled features that the gallery and clustering work on."""

    logits: Tensor
    embedding: Tensor


class Network(nn.Module, ABC):
    """An encoder with what a method puts on top.

    Attributes: `encoder`, `num_classes`, the registered `network_name`, and whether the encoder is a whole timm model
    (`encoder_is_whole`), which other networks may take over.
    """

    network_name: ClassVar[str]
    encoder_is_whole: ClassVar[bool] = True
    encoder: Encoder
    num_classes: int

    @abstractmethod
    def forward(self, images: Tensor) -> NetworkOutput:
        """(B, 3, H, W) float, preprocessed by `encoder.data_config` -> NetworkOutput, or a tuple with its fields."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, Any]) -> Network:
        """The network of a config.json with random weights, for `load_weights` to fill."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Root keys of config.json from which `from_config` rebuilds this network (no `label_names`)."""

    def network_args(self) -> dict[str, Any]:
        """What `from_config` finds under `fgdemo.network_args`, beside the root keys."""
        return {}

    @abstractmethod
    def new_modules(self) -> tuple[str, ...]:
        """Prefixes of parameters made anew on top of trained weights; empty where nothing was trained."""

    @abstractmethod
    def head_modules(self) -> tuple[nn.Module, ...]:
        """What stays trainable when the encoder is frozen."""

    def weights(self) -> dict[str, Tensor]:
        """Every parameter and buffer for a checkpoint: detached copies on the CPU, contiguous, unshared."""
        module = self._exported()
        return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in module.state_dict().items()}

    def load_weights(self, tensors: dict[str, Tensor], strict: bool = True) -> None:
        """Fill the network from `weights()`; float16 tensors are widened to the network's own precision.

        Raises:
            UserError: tensors missing, unexpected (both only if strict) or of another shape.
        """
        try:
            self._exported().load_state_dict(tensors, strict=strict)
        except RuntimeError as error:
            raise UserError(
                f"The weights do not fit the network that config.json describes: {describe_mismatch(error)}."
            ) from error

    def freeze_encoder(self) -> None:
        """Train only `head_modules`; the rest also stays in evaluation mode (norm statistics, dropout)."""
        heads = self._head_module_ids()
        for module in self.modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(id(module) in heads)
        self._frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Network:
        super().train(mode)
        if mode and getattr(self, "_frozen", False):
            heads = self._head_module_ids()
            for module in self.modules():
                if module is not self and id(module) not in heads:
                    module.training = False
        return self

    def _head_module_ids(self) -> set[int]:
        return {id(module) for head in self.head_modules() for module in head.modules()}

    def _exported(self) -> nn.Module:
        return self


NETWORKS: dict[str, type[Network]] = {}


def register_network(name: str) -> Callable[[type[Network]], type[Network]]:
    """Class decorator: make a Network known as `fgdemo.network` of config.json.

    Raises:
        ValueError: the name is taken.
    """

    def register(cls: type[Network]) -> type[Network]:
        if name in NETWORKS:
            raise ValueError(f"network {name!r} is registered twice")
        cls.network_name = name
        NETWORKS[name] = cls
        return cls

    return register
