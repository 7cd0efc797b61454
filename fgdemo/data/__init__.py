"""Data sets by name, safe decoding, transforms and samplers."""

from fgdemo.data.catalogue import Catalogue
from fgdemo.data.class_sampler import ClassBalancedSampler
from fgdemo.data.hierarchy import Hierarchy
from fgdemo.data.image_split import ImageSplit, Sample
from fgdemo.data.images import decode_thumbnail, encode_thumbnail, open_image
from fgdemo.data.registry import (
    dataset_names,
    load_catalogue,
    load_dataset,
    load_training_catalogue,
    register,
)
from fgdemo.data.rng import keyed_permutation, keyed_random, keyed_seed
from fgdemo.data.samplers import EpochSampler, shard_rows
from fgdemo.data.transforms import Preprocessing, crop_box, eval_transform, squashed, train_transform

__all__ = [
    "Catalogue",
    "ClassBalancedSampler",
    "EpochSampler",
    "Hierarchy",
    "ImageSplit",
    "Preprocessing",
    "Sample",
    "crop_box",
    "dataset_names",
    "decode_thumbnail",
    "encode_thumbnail",
    "eval_transform",
    "keyed_permutation",
    "keyed_random",
    "keyed_seed",
    "load_catalogue",
    "load_dataset",
    "load_training_catalogue",
    "open_image",
    "register",
    "shard_rows",
    "squashed",
    "train_transform",
]
