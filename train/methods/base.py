"""What the engine asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fgdemo.clustering import ClasswiseClustering
from fgdemo.data import Catalogue, Sample
from fgdemo.models import Network, build_classifier
from train.inference import Outputs
from train.optim import OptimizerPlan, parameter_groups
from train.options import EncoderOptions, OptimOptions


@dataclass(frozen=True)
class DataInfo:
    """What a method may know of the training data before it builds its network.

    Attributes:
        index: (N,) int64 dataset indices of the training pictures, ascending.
        targets: (N,) int64 their classes.
        keys: (N,) their sample keys.
    """

    class_names: tuple[str, ...]
    index: np.ndarray
    targets: np.ndarray
    keys: np.ndarray

    @classmethod
    def of(cls, catalogue: Catalogue, level: str) -> DataInfo:
        """The training pictures of a data set with their classes at a level, "fine" or "coarse"."""
        rows = catalogue.rows("train")
        return cls(catalogue.class_names(level), rows, catalogue.targets(level)[rows], catalogue.keys[rows])

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class Subclasses(NamedTuple):
    """A division of training pictures in the order of the outputs it was asked for, and the criterion behind its K.
    The columns of the network's head are those of the clustering.

    `before` are subclasses whose ids and names go on where they share pictures: (n,) ids, -1 for none, and the content
    of a subclasses.json.
    """

    found: ClasswiseClustering
    chosen_by: str
    before: tuple[np.ndarray, dict[str, Any]] | None = None


@dataclass(frozen=True)
class BetweenEpochs:
    """What the engine offers a method before each epoch.

    Attributes:
        epoch: the epoch that is about to begin, from 0.
        device: where the network is.
        features: one pass over the training pictures without augmentation, by the network that is trained (not its
            average), in evaluation mode; the same on every process. It takes about a third of the time of an epoch.
        total: sum of a tensor over the processes, all of which call it alike.
        first: whether this is the first process.
        seed: the run's.
        log: write named figures into the run's log.
    """

    epoch: int
    device: torch.device
    features: Callable[[], Outputs]
    total: Callable[[Tensor], Tensor]
    first: bool
    seed: int
    log: Callable[[dict[str, float]], None]


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

    def prepare(self, network: Network, device: torch.device) -> None:  # noqa: B027
        """Once the network is on its device, before a saved state is loaded."""

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

    def between_epochs(self, network: Network, engine: BetweenEpochs) -> None:  # noqa: B027
        """Before each epoch, on every process."""

    def gather_state(self, total: Callable[[Tensor], Tensor]) -> None:  # noqa: B027
        """On every process, before the first one saves `state_dict`: put together what each has learned alone."""

    def end_step(self, network: Network, total: Callable[[Tensor], Tensor], steps_per_epoch: int) -> None:  # noqa: B027
        """After an optimiser step; `total` sums a tensor over the processes, all of which call it alike."""

    def divide(self, outputs: Outputs, seed: int) -> Subclasses | None:
        """The subclasses that a checkpoint shows, of training pictures as the exported network sees them, after
        `load_state_dict`; None where the method knows of none, and its checkpoint's classes are divided anew."""
        return None

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
