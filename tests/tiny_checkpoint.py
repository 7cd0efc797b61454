"""Checkpoints of timm's smallest models with random weights, their gallery made of drawn pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fgdemo.checkpoint import write_checkpoint
from fgdemo.clustering import classwise_kmeans
from fgdemo.data.images import encode_thumbnail
from fgdemo.data.transforms import Preprocessing, eval_transform
from fgdemo.gallery import Gallery
from fgdemo.models.build import build_network
from fgdemo.models.network import Network
from fgdemo.recluster import divide

CLASSES = ("apple", "moss", "sky")
SUBCLASS_IDS = (3, 8, 5)


def picture(row: int, size: tuple[int, int] = (72, 48)) -> Image.Image:
    """A picture of noise around one colour, by row: classes 0, 1, 2 in turn."""
    rng = np.random.default_rng(row)
    pixels = rng.integers(0, 90, (size[1], size[0], 3))
    pixels[..., row % 3] += 150
    return Image.fromarray(pixels.astype(np.uint8))


def make_network(architecture: str, name: str = "timm", **arguments: Any) -> Network:
    torch.manual_seed(0)
    arguments = {"num_classes": 3, "img_size": 64, **arguments}
    return build_network(name, architecture=architecture, **arguments).eval()


def make_voting_network(**settings: Any) -> Network:
    """Five blocks of two heads that vote on 12 x 12 patches; a classifier sure enough for its stages to differ."""
    network = make_network("test_vit", "voting", img_size=192, settings=settings)
    with torch.no_grad():
        network.head.weight.mul_(20)
    return network


def write_tiny(
    directory: Path,
    architecture: str = "test_vit",
    dtype: str = "float32",
    *,
    network: Network | None = None,
    **ours: Any,
) -> Path:
    """Rows 0..8 are training pictures, 9..11 validation; class 0 has subclasses 3 and 8, class 1 has 5.

    `network` is one with three classes instead of timm's `architecture`.
    """
    network = make_network(architecture) if network is None else network
    preprocessing = Preprocessing.from_data_config(network.encoder.data_config)
    transform = eval_transform(preprocessing)
    pictures = [picture(row) for row in range(12)]
    with torch.inference_mode():
        embedding = network(torch.stack([transform(p) for p in pictures])).embedding
    members = {c: [{"id": i, "name": f"kind {i}", "size": 3} for i in ids] for c, ids in ((0, (3, 8)), (1, (5,)))}
    subclasses = {
        "schema": 1,
        "next_id": 9,
        "engine": "test",
        "seed": 0,
        "classes": [
            {"class_id": c, "k": len(m), "chosen_by": "test", "scores": {}, "subclasses": m} for c, m in members.items()
        ],
    }
    gallery = Gallery.build(
        embedding,
        class_id=np.arange(12) % 3,
        split=np.repeat([0, 1], [9, 3]),
        keys=[f"drawn/{row:02d}.png" for row in range(12)],
        thumbnails=[encode_thumbnail(p) for p in pictures],
        subclass_id=np.array([3, 5, -1, 8, 5, -1, 3, 5, -1, -1, -1, -1]),
        subclasses=subclasses,
    )
    return _write(directory, network, preprocessing, gallery, dtype, ours)


def kind_of_picture(row: int, class_id: int, kind: int) -> Image.Image:
    """A picture of noise around the colour of its class, darker the higher the kind."""
    rng = np.random.default_rng([row, 1])
    pixels = rng.integers(0, 40, (48, 72, 3))
    pixels[..., class_id] += 200 - 60 * kind
    return Image.fromarray(pixels.astype(np.uint8))


def write_divided(directory: Path, ks: Sequence[int] = (2, 3, 4), **ours: Any) -> Path:
    """A network with outputs for subclasses, and classes of 3 kinds (24 training pictures), 2 (16) and 1 (1 picture).

    The last admits no K but 1. Each class has two validation pictures too, of which it has kinds.
    """
    network = make_network("test_vit", "subclasses", ks=ks)
    preprocessing = Preprocessing.from_data_config(network.encoder.data_config)
    class_id = np.repeat([0, 1, 2], [26, 18, 3])
    rank = np.concatenate([np.arange(n) for n in (26, 18, 3)])
    split = np.where(rank < np.array([24, 16, 1])[class_id], 0, 1)
    kinds = rank % np.array([3, 2, 1])[class_id]
    pictures = [kind_of_picture(row, c, kind) for row, (c, kind) in enumerate(zip(class_id, kinds, strict=True))]
    transform = eval_transform(preprocessing)
    with torch.inference_mode():
        embedding = network(torch.stack([transform(p) for p in pictures])).embedding
    gallery = Gallery.build(
        embedding,
        class_id=class_id,
        split=split,
        keys=[f"drawn/{row:02d}.png" for row in range(len(pictures))],
        thumbnails=[encode_thumbnail(p) for p in pictures],
        subclass_id=np.full(len(pictures), -1),
        subclasses={},
    )
    rows = gallery.train_rows
    found = classwise_kmeans(gallery.embeddings[rows].astype(np.float32), class_id[rows], ks)
    active = torch.from_numpy(found.sizes > 0)
    active[:, 0] |= ~active.any(1)
    network.set_active(active)
    gallery = divide(gallery, found, chosen_by="silhouette", columns=True)
    return _write(directory, network, preprocessing, gallery, "float32", {"method": "fgdcc", **ours})


def _write(
    directory: Path, network: Network, preprocessing: Preprocessing, gallery: Gallery, dtype: str, ours: dict[str, Any]
) -> Path:
    config = {
        **network.config(),
        "label_names": list(CLASSES),
        "fgdemo": {
            "network": network.network_name,
            "network_args": network.network_args(),
            "method": "classify",
            "options": {},
            "labels": "classes",
            "superclass_names": ["food", "plant", "air"],
            "preprocessing": preprocessing.to_dict(),
            "embedding": {"space": "pooled", "dim": gallery.dim, "metric": "cosine"},
            "novelty": {"threshold": 0.5, "quantile": 0.95, "measured": []},
            "training": {"dataset": "drawn", "command": "none"},
            "metrics": [{"split": "val", "name": "top1", "value": 0.5, "n": 3}],
            **ours,
        },
    }
    return write_checkpoint(
        directory,
        config=config,
        weights=network.weights(),
        gallery=gallery.to_tensors(),
        subclasses=gallery.subclasses,
        dtype=dtype,
    )
