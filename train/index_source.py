"""What `index` starts from: pictures, and an encoder that has been trained elsewhere or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fgdemo.checkpoint import Checkpoint, read_checkpoint, title
from fgdemo.checkpoint.hub import resolve
from fgdemo.data import Catalogue, Preprocessing, load_catalogue
from fgdemo.data.unlabelled import picture_folder, without_labels
from fgdemo.errors import UserError
from fgdemo.models import build_from_config, build_network
from fgdemo.models.neighbour_network import NeighbourNetwork
from train.index_settings import SourceOptions

# Trained without labels, and published with its figures as a nearest-neighbour classifier: Oquab et al., DINOv2:
# Learning Robust Visual Features without Supervision, TMLR 2024. Apache-2.0. At its own 518 pixels it takes ten times
# as long as at 224.
DEFAULT_ENCODER = "vit_small_patch14_dinov2"
DEFAULT_SIZE = 224


def open_pictures(folder: str | None, data_root: str | None, options: SourceOptions) -> Catalogue:
    """The data set; of a folder nothing is held out that its maker has not put aside.

    Raises:
        UserError: no pictures, or none in class folders where labels are wanted.
    """
    if options.data is not None:
        catalogue = load_catalogue(options.data, data_root, seed=options.seed)
        return without_labels(catalogue) if options.labels == "none" else catalogue
    root = Path(folder).expanduser()
    if options.labels == "none":
        return picture_folder(root)
    try:
        return load_catalogue("imagefolder", root, seed=options.seed, val_fraction=0.0)
    except UserError as error:
        if not root.is_dir():
            raise
        raise UserError(f"{error} For pictures without classes give --no-labels.") from error


def open_encoder(options: SourceOptions, num_classes: int) -> tuple[NeighbourNetwork, Preprocessing, dict[str, Any]]:
    """A network that remembers nothing yet, the input it wants, and where its weights are from.

    Raises:
        UserError: an unknown encoder, or weights that cannot be had or do not fit.
    """
    if options.checkpoint is not None:
        return _from_checkpoint(read_checkpoint(resolve(options.checkpoint)), num_classes)
    name = options.encoder or DEFAULT_ENCODER
    network = build_network(
        "neighbours",
        architecture=name,
        num_classes=num_classes,
        pretrained=options.pretrained,
        weights=options.encoder_weights,
        img_size=options.img_size or (DEFAULT_SIZE if name == DEFAULT_ENCODER else None),
        model_args=options.encoder_args,
    )
    origin = {"encoder": name, "encoder_weights": f"random, seed {options.seed}"}
    if options.encoder_weights is not None:
        origin["encoder_weights"] = f"the file {Path(options.encoder_weights).name}"
    elif options.pretrained:
        origin["encoder_weights"] = "pretrained, by timm"
        origin["base_model"] = network.encoder.net.pretrained_cfg.get("hf_hub_id")
    return network.eval(), Preprocessing.from_data_config(network.encoder.data_config), origin


def _from_checkpoint(
    checkpoint: Checkpoint, num_classes: int
) -> tuple[NeighbourNetwork, Preprocessing, dict[str, Any]]:
    source = build_from_config(checkpoint.config)
    if not source.encoder_is_whole:
        raise UserError(
            f"The encoder in {checkpoint.directory} is only a part of a network that works as a whole "
            f"({source.network_name}): index with --encoder, or with the checkpoint of another method."
        )
    source.load_weights(checkpoint.weights())
    network = NeighbourNetwork.on_encoder(source.encoder, num_classes)
    origin = {"encoder": source.encoder.name, "encoder_weights": f"of the checkpoint {title(checkpoint.config)}"}
    return network.eval(), Preprocessing.from_dict(checkpoint.config["fgdemo"]["preprocessing"]), origin
