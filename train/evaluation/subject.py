"""What is evaluated: a checkpoint's network, its gallery, and the data set it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fgdemo.checkpoint import Checkpoint, read_checkpoint
from fgdemo.checkpoint.hub import resolve
from fgdemo.data import Catalogue, ImageSplit, Preprocessing, eval_transform
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery
from fgdemo.models import Network, build_from_config
from train.inference import Outputs, run_split


@dataclass
class Subject:
    """One checkpoint over its data set, in the hands of every ruler.

    Rulers run on every process alike: each pass over pictures is shared out, and its outputs are the same everywhere.

    Attributes:
        target: what the command line named.
        split: the split that figures are about: "train", "val" or "test".
        run: the folder of the run that the checkpoint came from, or None where a checkpoint was given.
        network: in evaluation mode, on the accelerator's device.
    """

    target: str
    split: str
    run: Path | None
    accelerator: Accelerator
    checkpoint: Checkpoint
    network: Network
    catalogue: Catalogue
    batch_size: int
    workers: int
    strict: bool = False
    _outputs: dict[str, Outputs] = field(default_factory=dict, repr=False)

    @property
    def ours(self) -> dict[str, Any]:
        """What config.json says under `fgdemo`."""
        return self.checkpoint.config["fgdemo"]

    @property
    def training(self) -> dict[str, Any]:
        """The training summary of config.json."""
        return self.ours["training"]

    @property
    def level(self) -> str:
        """The level of the hierarchy that training saw, "fine" or "coarse"."""
        return self.training["labels"]

    @property
    def seed(self) -> int:
        return self.training["seed"]

    @cached_property
    def gallery(self) -> Gallery:
        return Gallery.from_checkpoint(self.checkpoint)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        return preprocessing_of(self.checkpoint)

    def images(self, split: str, transform: Callable[..., Any] | None = None) -> ImageSplit:
        """A split of the data set with labels of the trained level; by default as the network sees pictures."""
        return ImageSplit(
            self.catalogue,
            split,
            labels=self.level,
            transform=transform or eval_transform(self.preprocessing),
            strict=self.strict,
        )

    def encode(self, images: ImageSplit, network: Network | None = None, epoch: int = 0) -> Outputs:
        """One pass of the network, or of another one with the same input, over a split as it is drawn in `epoch`."""
        return run_split(
            self.accelerator,
            network or self.network,
            images,
            batch_size=self.batch_size,
            workers=self.workers,
            epoch=epoch,
        )

    def outputs(self, split: str) -> Outputs:
        """Logits and embeddings of a split as the network sees it; one pass however often it is asked for."""
        if split not in self._outputs:
            self._outputs[split] = self.encode(self.images(split))
        return self._outputs[split]


def open_target(target: str) -> tuple[Path | None, Checkpoint]:
    """The run's folder, or None where `target` is a checkpoint; and the checkpoint.

    Raises:
        UserError: neither, or a run that has no checkpoint yet.
    """
    run = Path(target)
    if (run / "options.yaml").is_file():
        if not (run / "checkpoint").is_dir():
            raise UserError(f"{run} has no checkpoint yet: let the run end, or write one with: train export {run}.")
        return run, read_checkpoint(run / "checkpoint")
    return None, read_checkpoint(resolve(target))


def load_network(checkpoint: Checkpoint) -> Network:
    """The checkpoint's network with its weights, in eval mode."""
    network = build_from_config(checkpoint.config)
    network.load_weights(checkpoint.weights())
    return network.eval()


def preprocessing_of(checkpoint: Checkpoint) -> Preprocessing:
    return Preprocessing.from_dict(checkpoint.config["fgdemo"]["preprocessing"])


def check_classes(checkpoint: Checkpoint, split: ImageSplit) -> None:
    """Refuse data whose classes are not the checkpoint's, in the checkpoint's order."""
    names = tuple(checkpoint.config["label_names"])
    if names != tuple(split.class_names):
        differing = next(
            (f"'{a}' and '{b}'" for a, b in zip(names, split.class_names, strict=False) if a != b),
            f"{len(names)} and {len(split.class_names)} classes",
        )
        raise UserError(
            f"The classes of {split.catalogue.name} are not those of the checkpoint (first difference: {differing}): "
            "give the --data-root that it was trained on."
        )
