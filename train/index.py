"""`python -m train index FOLDER`: a checkpoint without any training.

An encoder that was trained elsewhere embeds the pictures; the nearest of them vote for the class of a new one, and the
app shows the rest. Without labels there is one class of all pictures, and the clusters found in it are its subclasses:
clusters are then what every tab shows, and dividing anew makes new clusters of all pictures at once, with names, ids
and weights kept. Clusters as classes of their own would have to change the network whenever a person divides anew. The
votes tell nothing then, and serve activation maps alone: what makes a picture like its nearest ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from fgdemo.checkpoint import write_checkpoint
from fgdemo.data import Catalogue
from fgdemo.gallery import Gallery
from fgdemo.models.neighbour_network import NeighbourNetwork
from train.checkpoint_parts import (
    at_most_per_class,
    data_facts,
    divide_anew,
    encode_split,
    metric_rows,
    undivided_gallery,
)
from train.cli import build_parser, normalise_argv, split_namespace
from train.index_settings import GROUPS, Settings, check_number, check_settings, check_writable
from train.index_source import open_encoder, open_pictures
from train.inference import Outputs
from train.launch import make_accelerator
from train.leave_one_out import LeaveOneOut, leave_one_out
from train.metrics import classification_metrics
from train.novelty import novelty_flag
from train.options import RunOptions


def index_command(argv: list[str]) -> None:
    """Parse, index, say where."""
    parser = build_parser(
        "python -m train index", "Make a checkpoint of a folder of pictures without any training.", GROUPS
    )
    parser.add_argument("folder", type=str, nargs="?", help="class folders, or with --no-labels any folder")
    words = [part for word in argv for part in (("--labels", "none") if word == "--no-labels" else (word,))]
    values = parser.parse_args(normalise_argv(words, GROUPS))
    settings = Settings(values.folder, *split_namespace(values, GROUPS))
    options = settings.output
    accelerator = make_accelerator(RunOptions(device=options.device, threads=options.threads))
    path = index_pictures(accelerator, settings)
    accelerator.print(f"checkpoint: {path}")


def index_pictures(accelerator: Accelerator, settings: Settings) -> Path:
    """Write the checkpoint; called by every process, done by the first.

    Raises:
        UserError: options that contradict each other, too few pictures, no weights, or no place to write to.
    """
    source, options = settings.source, settings.output
    check_settings(settings)
    check_writable(settings.target)
    catalogue = open_pictures(settings.folder, options.data_root, source)
    level = catalogue.default_labels if source.labels in (None, "none") else source.labels
    set_seed(source.seed)
    network, preprocessing, origin = open_encoder(source, len(catalogue.class_names(level)))
    network.to(accelerator.device)
    accelerator.print(f"{len(catalogue.rows('train')):,} pictures through {origin['encoder']} ...")
    outputs = {
        name: encode_split(
            accelerator, network, catalogue, name, preprocessing, options, labels=level, strict=source.strict
        )
        for name in ("train", *_held_out(settings, catalogue))
    }
    readable = outputs.pop("train")
    train = at_most_per_class(readable, options.gallery_per_class, source.seed)
    check_number(len(train.index), settings)
    target = settings.target
    if accelerator.is_main_process:
        memory, votes = train.embeddings.to(accelerator.device), settings.votes
        found = leave_one_out(memory, train.labels, network.num_classes, k=votes.k, temperature=votes.temperature)
        network.remember(memory, train.labels, k=found.k, temperature=found.temperature)
        figures = {name: _figures(network, output) for name, output in outputs.items()}
        gallery = divide_anew(undivided_gallery(catalogue, train, options), options, seed=source.seed, k=votes.clusters)
        ours = {
            "preprocessing": preprocessing.to_dict(),
            "embedding": {"space": "pooled", "dim": network.encoder.dim, "metric": "cosine"},
            "novelty": _novelty(gallery, outputs.get("val"), found),
            "training": {**data_facts(catalogue, level, source.seed), **_facts(settings, origin, gallery, found)},
            "metrics": metric_rows(figures),
        }
        target = write_checkpoint(
            target,
            config=build_config(settings, network, catalogue, level, ours),
            weights=network.weights(),
            gallery=gallery.to_tensors(),
            subclasses=gallery.subclasses,
            dtype=options.dtype,
        )
        unreadable = len(catalogue.rows("train")) - len(readable.index)
        print("\n".join(_lines(settings, network, gallery, found, figures, unreadable)))
    accelerator.wait_for_everyone()
    return target


def build_config(
    settings: Settings, network: NeighbourNetwork, catalogue: Catalogue, level: str, ours: dict[str, Any]
) -> dict[str, Any]:
    """config.json from what was found out."""
    options = settings.output
    named = {"title": options.title, "license": options.license}
    return {
        **network.config(),
        "label_names": list(catalogue.class_names(level)),
        "fgdemo": {
            "network": network.network_name,
            "network_args": network.network_args(),
            "method": "index",
            "options": settings.values,
            "labels": "none" if settings.unlabelled else "classes",
            "superclass_names": list(catalogue.superclass_names(level)),
            **ours,
            **{key: value for key, value in named.items() if value},
        },
    }


def _held_out(settings: Settings, catalogue: Catalogue) -> list[str]:
    """Splits to measure on: of a known data set validation alone, since `test` is read by `evaluate`."""
    if settings.unlabelled:
        return []
    return [name for name in (("val",) if settings.source.data else ("val", "test")) if len(catalogue.rows(name))]


def _figures(network: NeighbourNetwork, output: Outputs) -> dict[str, Any]:
    """What the votes say about embeddings that were computed before the network had a memory."""
    device = network.votes.memory.device
    logits = [network.votes(part.to(device)).cpu() for part in output.embeddings.split(256)]
    return classification_metrics(torch.cat(logits), output.labels)


def _novelty(gallery: Gallery, val: Outputs | None, found: LeaveOneOut) -> dict[str, Any]:
    if val is not None:
        return novelty_flag(gallery.neighbours(val.embeddings.numpy(), 1)[1][:, 0])
    return novelty_flag(found.distances, "the gallery's own pictures, each left out in turn")


def _facts(settings: Settings, origin: dict[str, Any], gallery: Gallery, found: LeaveOneOut) -> dict[str, Any]:
    """What `fgdemo.training` says beside the data set."""
    figures = {
        "leave_one_out_top1": round(found.top1, 6),
        "leave_one_out_nll": round(found.nll, 6),
        "leave_one_out_n": found.n,
    }
    return {
        **origin,
        **({"labels": "none"} if settings.unlabelled else {}),
        "samples": len(gallery),
        "superclasses": None,
        "val_fraction": None if settings.source.data else 0.0,
        "test_fraction": None,
        "command": settings.command,
        **(figures if found.n else {}),
    }


def _lines(
    settings: Settings,
    network: NeighbourNetwork,
    gallery: Gallery,
    found: LeaveOneOut,
    figures: dict[str, dict[str, Any]],
    unreadable: int,
) -> list[str]:
    """What the person reads in the end."""
    groups = len(gallery.centroid_ids)
    if settings.unlabelled:
        lines = [f"{len(gallery):,} pictures in {groups} clusters"]
        if not settings.votes.clusters and groups == settings.output.max_k > 1:
            lines.append("  that is as many as --max-k allows; there may be more")
    else:
        lines = [f"{len(gallery):,} pictures of {network.num_classes} classes in {groups} subclasses"]
        lines.append(f"  the {found.k} nearest vote at temperature {found.temperature:g}")
    if found.n:
        lines.append(
            f"  leave-one-out: top-1 {100 * found.top1:.2f} %, NLL {found.nll:.4f} on {found.n:,} pictures of the "
            "gallery itself; optimistic where pictures come in bursts"
        )
    lines += [f"  {name}: top-1 {100 * figure['top1']:.2f} % of {figure['n']:,}" for name, figure in figures.items()]
    if not settings.unlabelled and network.num_classes == 1:
        lines.append("  one class has nothing to be told from: --no-labels finds clusters in its pictures")
    alone = int((np.bincount(gallery.class_id) == 1).sum())
    if alone and not settings.unlabelled:
        lines.append(f"  {alone} classes have one picture, which leave-one-out passes by")
    if unreadable:
        lines.append(f"  {unreadable} pictures cannot be read and are left out")
    return lines
