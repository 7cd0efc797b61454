"""Local files of weights: how they are read, and what is said of tensors that do not fit.

Safetensors, PyTorch files that load with `weights_only=True`, and NumPy archives of plain arrays: no code of theirs is
run.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from timm.models import load_state_dict

from fgdemo.errors import UserError

WEIGHT_SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".tar")


def weights_path(path: Path) -> Path:
    """The file itself, or the model file of a checkpoint directory.

    Raises:
        UserError: a directory without one.
    """
    if not path.is_dir():
        return path
    inside = path / "model.safetensors"
    if not inside.is_file():
        raise UserError(f"No model.safetensors in {path}: give a weights file or a checkpoint directory.")
    return inside


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file, of a PyTorch file that loads with `weights_only=True`, or of an .npz archive.

    Nested training files (`model`, `state_dict`, `state_dict_ema`) and wrapper prefixes are unpacked by timm. Arrays
    become float32 tensors. The whole file is held in memory.

    Raises:
        UserError: no such file, another format, a damaged file, or a pickle that holds more than tensors.
    """
    if not path.is_file():
        raise UserError(f"No weights at {path}: give a .safetensors, weights-only .pth or .npz file.")
    if path.suffix not in WEIGHT_SUFFIXES:
        raise UserError(f"{path} is not a weights file: expected {', '.join(WEIGHT_SUFFIXES)}.")
    if path.suffix == ".npz":
        return _read_npz(path)
    try:
        tensors = load_state_dict(str(path))
    except SafetensorError as error:
        raise UserError(f"{path} is not a valid safetensors file: {error}.") from error
    except (
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        AttributeError,
        KeyError,
        OSError,
    ) as error:
        raise UserError(
            f"{path} cannot be loaded as weights only (damaged, or a pickle with code, which is never run): "
            "convert it to .safetensors."
        ) from error
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise UserError(f"{path} holds no plain dictionary of tensors: export the weights alone.")
    return tensors


def source_args(path: Path, name: str) -> dict[str, Any]:
    """The size the file was made for, from timm's config.json beside it: non-square tables need it."""
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        size = config["model_args"]["img_size"]
        if config["architecture"] == name.partition(".")[0]:
            return {"img_size": size}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def classifier_size(tensors: dict[str, torch.Tensor], published: str | tuple[str, ...] | None) -> int:
    """Classes of the classifier among tensors of timm's names, 0 for none; `published` is timm's name of it."""
    names = (published,) if isinstance(published, str) else tuple(published or ())
    for name in (*names, "head", "fc", "head.fc", "classifier"):
        weight = tensors.get(f"{name}.weight")
        if weight is not None and weight.ndim in (2, 4):
            return weight.shape[0]
    return 0


def describe_names(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The first few names that are missing among those found, and those unexpected; empty where they agree."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    return "; ".join(_first(t, n) for t, n in (("missing", missing), ("unexpected", unexpected)) if n)


def describe_mismatch(error: RuntimeError) -> str:
    """The first few names of each kind in the message of torch's strict `load_state_dict`."""
    text = str(error)
    parts = []
    for title, pattern in (
        ("missing", r"Missing key\(s\) in state_dict: (.*?)\. *(?:\n|$)"),
        ("unexpected", r"Unexpected key\(s\) in state_dict: (.*?)\. *(?:\n|$)"),
    ):
        found = re.search(pattern, text)
        if found:
            parts.append(_first(title, re.findall(r'"([^"]+)"', found.group(1))))
    shape = r"torch\.Size\((\[[^\]]*\])\)"
    shapes = re.findall(rf"size mismatch for (\S+): .*?shape {shape}.*?current model is {shape}", text)
    if shapes:
        parts.append(_first("other shapes", [f"{name} {a} for {b}" for name, a, b in shapes]))
    return "; ".join(parts) or " ".join(text.split())[:200]


def _first(title: str, items: Iterable[str], limit: int = 3) -> str:
    items = list(items)
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return f"{title} {', '.join(items[:limit])}{more}"


def _read_npz(path: Path) -> dict[str, torch.Tensor]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("one array, not an archive")
        with archive:
            arrays = dict(archive.items())
    except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read as an .npz archive of plain arrays (damaged, or pickled objects, which are never "
            "loaded): fetch it again, or save the arrays with numpy.savez."
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            kind = array.dtype if isinstance(array, np.ndarray) else "raw bytes"
            raise UserError(f"{path} holds {name} as {kind}: weights must be arrays of floating-point numbers.")
    if not arrays:
        raise UserError(f"{path} holds no arrays: export the weights themselves.")
    return {name: torch.from_numpy(np.asarray(array, dtype=np.float32)) for name, array in arrays.items()}
