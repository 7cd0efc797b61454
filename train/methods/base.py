"""What the engine asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from fgdemo.data import Sample
from fgdemo.models import Network, build_classifier
from train.optim import OptimizerPlan, parameter_groups
from train.options import EncoderOptions, OptimOptions


@dataclass(frozen=True)
class DataInfo:
    """What a method may know of the training data before it builds its network."""

    class_names: tuple[str, ...]
    samples: int

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class Method(ABC):
    """A way of training. The engine owns devices, precision, accumulation, clipping, EMA, schedules and disk.

    A method never moves tensors to a device, reads a value back from it in a step, or prints.
    """

    name: ClassVar[str]
    Options: ClassVar[type]

    def __init__(self, options: object, data: DataInfo) -> None:
        self.options = options
        self.data = data

    @abstractmethod
    def build(self, encoder: EncoderOptions) -> Network:
        """The network to train, with its encoder frozen if the options say so."""

    @abstractmethod
    def training_step(self, model: nn.Module, batch: Sample) -> dict[str, Tensor]:
        """Named scalar losses of one batch, `total` among them, from one call of `model`.

        `model` is the wrapped network: a second call in the same step would break the synchronisation of
        processes, so views are concatenated into one batch.
        """

    def check(self, optim: OptimOptions) -> None:  # noqa: B027 (a hook, not a duty)
        """Refuse options of the engine that this method cannot work with.

        Raises:
            UserError: such options.
        """

    def optimizers(self, network: Network, options: OptimOptions) -> dict[str, OptimizerPlan]:
        """The optimisers by name, each over parameters of its own: one over all that trains, unless overridden."""
        return {"main": OptimizerPlan(parameter_groups(network, options, network.new_modules()), options)}

    def end_step(self, network: Network, total: Callable[[Tensor], Tensor], steps_per_epoch: int) -> None:  # noqa: B027
        """After an optimiser step; `total` sums a tensor over the processes, all of which call it alike."""

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors beside the network that must survive a restart."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        if state:
            raise ValueError(f"{self.name} keeps no state, got {sorted(state)}")


def build_plain_network(options: EncoderOptions, num_classes: int) -> Network:
    """Any timm model with a linear classifier of its own: the network of methods that add no module."""
    network = build_classifier(
        options.encoder,
        num_classes=num_classes,
        pretrained=options.pretrained and options.encoder_weights is None,
        weights=options.encoder_weights,
        img_size=options.img_size,
        model_args=options.encoder_args,
    )
    if options.freeze:
        network.freeze_encoder()
    return network
