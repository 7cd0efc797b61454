"""What the command line of `index` says, and what is wrong with it."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fgdemo.errors import UserError
from train.checkpoint_parts import CheckpointOptions


@dataclass
class SourceOptions:
    """Pictures and encoder"""

    data: str | None = None
    """a data set by name (see classify) in place of FOLDER; its training split is indexed"""
    labels: Literal["fine", "coarse", "none"] | None = None
    """level of the hierarchy; none (or --no-labels): clusters stand in for classes, and class folders mean nothing"""
    encoder: str | None = None
    """any timm model name; not given: vit_small_patch14_dinov2 at 224 pixels"""
    pretrained: bool = True
    """timm's pretrained weights, fetched from the Hub"""
    encoder_weights: str | None = None
    """weights from this file instead: .safetensors or weights-only .pth (timm's or DINOv2's), or .npz (Google's ViT)"""
    img_size: int | tuple[int, int] | None = None
    """side, or height and width, of the input in pixels; not given: the encoder's own"""
    encoder_args: dict = field(default_factory=dict)
    """further arguments of the timm model as JSON"""
    checkpoint: str | None = None
    """take the encoder, its weights and its input from this checkpoint (folder or Hub id) instead"""
    seed: int = 0
    """the seed of clusterings, of the choice of pictures, and of random weights"""
    strict: bool = False
    """stop at the first picture that cannot be read, instead of leaving it out"""


@dataclass
class VoteOptions:
    """Votes and clusters"""

    k: int | None = None
    """nearest pictures that vote; not given: chosen by leave-one-out from 1, 2, 5, 10, ... 200"""
    temperature: float | None = None
    """of the votes, in units of the cosine; not given: chosen by leave-one-out from 0.001 to 1"""
    clusters: int | None = None
    """with --no-labels: number of clusters; not given: chosen from the data, at most --max-k"""


@dataclass
class OutputOptions(CheckpointOptions):
    """What goes into the checkpoint"""

    out: str | None = None
    """folder of the checkpoint; not given: runs/index-NAME; a taken name gets a sibling NAME-v2"""
    gallery_per_class: int = 0
    """pictures of each class that are remembered and shown, a seeded choice; 0: all"""
    max_k: int = 12
    """most subclasses of one class, or clusters of all pictures"""
    data_root: str | None = None
    """folder that holds the data set of --data"""


GROUPS = (SourceOptions, VoteOptions, OutputOptions)
# Options that name places on this machine, which have no business in a checkpoint; of the files the name may stay.
_PLACES = ("out", "data_root")
_FILES = ("encoder_weights", "checkpoint")


@dataclass(frozen=True)
class Settings:
    """All that the command line said."""

    folder: str | None
    source: SourceOptions
    votes: VoteOptions
    output: OutputOptions

    @property
    def unlabelled(self) -> bool:
        return self.source.labels == "none"

    @property
    def target(self) -> Path:
        name = self.source.data or Path(self.folder).resolve().name
        return Path(self.output.out or f"runs/index-{name}")

    @property
    def values(self) -> dict[str, Any]:
        """All options as plain values, without the folders of this machine."""
        groups = (self.source, self.votes, self.output)
        values = {key: value for group in groups for key, value in asdict(group).items() if key not in _PLACES}
        for key in _FILES:
            if values[key] is not None and Path(values[key]).expanduser().exists():
                values[key] = Path(values[key]).resolve().name
        return values

    @property
    def command(self) -> str:
        """The command as a reader elsewhere can use it."""
        usual = Settings(None, SourceOptions(), VoteOptions(), OutputOptions()).values
        words = ["python", "-m", "train", "index"]
        for name, value in self.values.items():
            if value != usual[name]:
                words += [f"--{name.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value)]
        return shlex.join(words) + ("" if self.source.data else " FOLDER")


def check_settings(settings: Settings) -> None:
    """Refuse numbers that cannot be meant, and options that would do nothing, before any work is done."""
    options, votes = settings.output, settings.votes
    _check_source(settings)
    at_least = {
        "--k": (votes.k, 1),
        "--clusters": (votes.clusters, 1),
        "--gallery-per-class": (options.gallery_per_class, 0),
        "--thumbnails": (options.thumbnails, 0),
        "--max-k": (options.max_k, 1),
        "--min-pictures": (options.min_pictures, 1),
        "--batch-size": (options.batch_size, 1),
        "--workers": (options.workers, 0),
    }
    for name, (value, least) in at_least.items():
        if value is not None and value < least:
            raise UserError(f"{name} is {value}; it is at least {least}.")
    if votes.temperature is not None and not votes.temperature > 0:
        raise UserError(f"--temperature is {votes.temperature}; it is greater than 0.")
    if settings.unlabelled and (votes.k or votes.temperature):
        raise UserError(
            "--k and --temperature weigh votes for classes, and without labels there are none: leave them out."
        )
    if votes.clusters and not settings.unlabelled:
        raise UserError("--clusters is for --no-labels; the subclasses of each class are at most --max-k.")


def check_writable(target: Path) -> None:
    """Refuse a place that cannot be written to now rather than after hours of work."""
    existing = next(folder for folder in Path(os.path.abspath(target.expanduser())).parents if os.path.lexists(folder))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{target} cannot be written: {existing} is no folder you may write to; choose another --out.")


def check_number(pictures: int, settings: Settings) -> None:
    """Refuse too few pictures for what is asked."""
    votes = settings.votes
    if pictures < 2:
        raise UserError("An index needs at least two pictures that can be read, to compare one with another.")
    for name, value in (("--k", votes.k), ("--clusters", votes.clusters)):
        if value is not None and value > pictures:
            raise UserError(f"{name} is {value}, but there are {pictures} pictures: choose at most so many.")


def _check_source(settings: Settings) -> None:
    """Refuse pictures or encoders named twice or not at all."""
    folder, options = settings.folder, settings.source
    if (folder is None) == (options.data is None):
        raise UserError("Give the folder of your pictures, or --data NAME for a known data set: one of the two.")
    if folder is not None and settings.output.data_root is not None:
        raise UserError(f"--data-root belongs to --data; the pictures of {folder} lie in that folder.")
    if options.checkpoint is not None:
        named = {
            "--encoder": options.encoder,
            "--encoder-weights": options.encoder_weights,
            "--img-size": options.img_size,
            "--encoder-args": options.encoder_args,
            "--no-pretrained": not options.pretrained,
        }
        given = [name for name, value in named.items() if value]
        if given:
            raise UserError(f"--checkpoint brings its own encoder, weights and input: leave out {', '.join(given)}.")
