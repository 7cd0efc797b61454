"""A checkpoint of handwritten digits embedded by their own pixels, behind a network with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from fgdemo.checkpoint import write_checkpoint
from fgdemo.data import encode_thumbnail, load_catalogue
from fgdemo.gallery import Gallery
from fgdemo.models import build_network
from fgdemo.recluster import recluster

DIM = 64
"""Pixels of a digit, and features of timm's test_vit."""


def write_digits(directory: Path, *, classes: int = 4, per_class: int = 50) -> Path:
    """The first pictures of the first classes, of all splits; two subclasses a class."""
    catalogue = load_catalogue("digits")
    rows = np.concatenate([np.flatnonzero(catalogue.fine == c)[:per_class] for c in range(classes)])
    # the same row order as the catalogue's
    pixels = load_digits().data[rows]
    torch.manual_seed(0)
    network = build_network("timm", architecture="test_vit", num_classes=classes, img_size=64)
    gallery = Gallery.build(
        pixels - pixels.mean(0),
        class_id=catalogue.fine[rows],
        split=np.array([("train", "val", "test").index(split) for split in catalogue.split[rows]]),
        keys=catalogue.keys[rows].tolist(),
        thumbnails=[encode_thumbnail(catalogue.reader(int(row))) for row in rows],
        subclass_id=np.full(len(rows), -1),
        subclasses={"schema": 1, "next_id": 0, "engine": "none", "seed": 0, "classes": []},
    )
    gallery = recluster(gallery, k=2).gallery
    config = network.config()
    config["label_names"] = list(catalogue.class_names("fine")[:classes])
    config["fgdemo"] = {
        "network": "timm",
        "network_args": {},
        "method": "classify",
        "options": {},
        "labels": "classes",
        "superclass_names": list(catalogue.superclass_names("fine")[:classes]),
        "preprocessing": {
            "input_size": [3, 64, 64],
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "crop_pct": 1.0,
            "crop_mode": "center",
        },
        "embedding": {"space": "pooled", "dim": DIM, "metric": "cosine"},
        "novelty": None,
        "training": {"dataset": "digits", "seed": 0},
        "metrics": [],
    }
    return write_checkpoint(
        directory,
        config=config,
        weights=network.weights(),
        gallery=gallery.to_tensors(),
        subclasses=gallery.subclasses,
    )
