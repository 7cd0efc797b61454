"""The two safetensors files of a checkpoint: memory-mapped reading and the layout of the gallery."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from fgdemo.checkpoint.schema import GALLERY_FILE, first_column, refuse, subclass_classes
from fgdemo.errors import UserError

# Shapes are in symbols: N gallery rows, D embedding size, S subclasses, M hypotheses, "*" any length, "N+1" offsets.
GALLERY_LAYOUT: dict[str, tuple[torch.dtype, tuple[str, ...]]] = {
    "embeddings": (torch.float16, ("N", "D")),
    "class_id": (torch.int32, ("N",)),
    "subclass_id": (torch.int32, ("N",)),
    "split": (torch.uint8, ("N",)),
    "keys": (torch.uint8, ("*",)),
    "key_offsets": (torch.int64, ("N+1",)),
    "thumbnails": (torch.uint8, ("*",)),
    "thumbnail_offsets": (torch.int64, ("N+1",)),
    "centroids": (torch.float32, ("S", "D")),
    "centroid_ids": (torch.int32, ("S",)),
}
# There exactly where subclasses.json has "ks".
HYPOTHESES_LAYOUT: dict[str, tuple[torch.dtype, tuple[str, ...]]] = {"hypotheses": (torch.int16, ("N", "M"))}
NUM_SPLITS = 3
_TRAIN = 0
_NORM_TOLERANCE = 1e-2
_CHUNK = 1 << 16
# A key is a POSIX path relative to the data root, so it may not be empty, absolute or climb out of it.
_BAD_KEY = re.compile(r"\A\Z|\A/|\A[A-Za-z]:[\\/]|(?:\A|/)\.\.(?:/|\Z)|\x00")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, memory-mapped: pages are read from disk when they are touched.

    Raises:
        UserError: the file is malformed, a pickle, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            refuse(path, "", "this is a pickle, which is never opened", "export it as safetensors")
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        refuse(path, "", f"this is not a valid safetensors file ({error})", "copy or export the checkpoint again")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); check its permissions.") from error


def pack(items: list[bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    """Byte strings as one uint8 tensor and (N+1,) int64 offsets."""
    lengths = np.fromiter((len(item) for item in items), np.int64, len(items))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    data = np.frombuffer(bytearray(b"".join(items)), np.uint8)
    return torch.from_numpy(data), torch.from_numpy(offsets)


def decode_keys(data: np.ndarray, offsets: np.ndarray) -> list[str]:
    """The (N,) sample keys of a gallery; raises UnicodeDecodeError where the bytes are not UTF-8."""
    buffer, bounds = data.tobytes(), offsets.tolist()
    return [buffer[a:b].decode("utf-8") for a, b in itertools.pairwise(bounds)]


def validate_gallery(
    tensors: Mapping[str, torch.Tensor],
    config: dict[str, Any],
    subclasses: dict[str, Any],
    source: Path | str = GALLERY_FILE,
) -> None:
    """Check every tensor of a gallery against the layout, config.json and subclasses.json.

    Raises:
        UserError: the first tensor that is missing, unknown, misshapen or inconsistent.
    """
    _check_layout(tensors, config["fgdemo"]["embedding"]["dim"], subclasses.get("ks"), source)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    _check_vectors(arrays["embeddings"], "embeddings", source, unit_norm=True)
    _check_vectors(arrays["centroids"], "centroids", source, unit_norm=False)
    _check_range(arrays["class_id"], "class_id", 0, config["num_classes"], source)
    _check_range(arrays["split"], "split", 0, NUM_SPLITS, source)
    _check_subclass_ids(arrays, subclasses, source)
    if "ks" in subclasses:
        _check_hypotheses(arrays, subclasses, config["num_classes"], source)
    for name in ("key", "thumbnail"):
        _check_offsets(arrays[f"{name}_offsets"], len(arrays[f"{name}s"]), f"{name}_offsets", source)
    try:
        keys = decode_keys(arrays["keys"], arrays["key_offsets"])
    except UnicodeDecodeError:
        refuse(source, "keys", "a sample key is not UTF-8")
    bad = next((key for key in keys if _BAD_KEY.search(key)), None)
    if bad is not None:
        refuse(source, "keys", f'the sample key "{bad}" is not a path inside a data folder')
    if len(set(keys)) != len(keys):
        refuse(source, "keys", "two samples have the same key")


def _check_layout(tensors: Mapping[str, torch.Tensor], dim: int, ks: list[int] | None, source: Path | str) -> None:
    layout = GALLERY_LAYOUT if ks is None else GALLERY_LAYOUT | HYPOTHESES_LAYOUT
    for name in sorted(layout.keys() - tensors.keys()):
        refuse(source, name, "this tensor is missing")
    for name in sorted(tensors.keys() - layout.keys()):
        where = ' whose subclasses.json has no "ks"' if name in HYPOTHESES_LAYOUT else ""
        refuse(source, name, f"this tensor does not belong in a gallery{where}")
    rows = len(tensors["class_id"]) if tensors["class_id"].ndim else 0
    sizes = {"N": rows, "N+1": rows + 1, "D": dim, "S": tensors["centroid_ids"].numel(), "M": len(ks or ())}
    for name, (dtype, symbols) in layout.items():
        tensor = tensors[name]
        if tensor.dtype != dtype:
            refuse(source, name, f"its type is {tensor.dtype}, not {dtype}")
        expected = [sizes.get(symbol) for symbol in symbols]
        fits = tensor.ndim == len(symbols) and all(
            want in (None, have) for want, have in zip(expected, tensor.shape, strict=True)
        )
        if not fits:
            shape = " x ".join(str(size or symbol) for size, symbol in zip(expected, symbols, strict=True))
            refuse(source, name, f"its shape is {list(tensor.shape)}, not {shape}")


def _check_vectors(x: np.ndarray, name: str, source: Path | str, *, unit_norm: bool) -> None:
    for start in range(0, len(x), _CHUNK):
        chunk = x[start : start + _CHUNK].astype(np.float32)
        norms = np.sqrt(np.einsum("nd,nd->n", chunk, chunk))
        # A zero vector has no direction: it is kept, at distance 1 from everything.
        wrong = (np.abs(norms - 1) > _NORM_TOLERANCE) & (norms != 0) if unit_norm else np.zeros(len(norms), bool)
        wrong |= ~np.isfinite(norms)
        if wrong.any():
            row = int(wrong.argmax())
            problem = "is not of unit length" if np.isfinite(norms[row]) else "holds NaN or infinity"
            refuse(source, name, f"row {start + row} {problem}")


def _check_range(x: np.ndarray, name: str, low: int, high: int, source: Path | str) -> None:
    outside = (x < low) | (x >= high)
    if outside.any():
        refuse(source, name, f"row {int(outside.argmax())} is {x[outside.argmax()]}, outside {low} to {high - 1}")


def _check_offsets(offsets: np.ndarray, length: int, name: str, source: Path | str) -> None:
    if offsets[0] != 0 or offsets[-1] != length or (offsets[1:] < offsets[:-1]).any():
        refuse(source, name, f"offsets must rise from 0 to {length}, the number of bytes")


def _check_subclass_ids(arrays: dict[str, np.ndarray], subclasses: dict[str, Any], source: Path | str) -> None:
    owners = subclass_classes(subclasses)
    known = np.fromiter(owners, np.int64, len(owners))
    if not np.array_equal(arrays["centroid_ids"], known):
        refuse(source, "centroid_ids", "they are not the ids of subclasses.json in ascending order")
    ids = arrays["subclass_id"]
    held = np.flatnonzero(ids != -1)
    position = np.searchsorted(known, ids[held])
    found = position < len(known)
    found[found] = known[position[found]] == ids[held][found]
    if not found.all():
        row = int(held[np.flatnonzero(~found)[0]])
        refuse(source, "subclass_id", f"row {row} has the id {ids[row]}, which subclasses.json does not list")
    owner = np.fromiter(owners.values(), np.int64, len(owners))[position]
    stray = np.flatnonzero(owner != arrays["class_id"][held])
    if len(stray):
        row = int(held[stray[0]])
        refuse(source, "subclass_id", f"row {row} has the id {ids[row]}, a subclass of another class")


def _check_hypotheses(
    arrays: dict[str, np.ndarray], subclasses: dict[str, Any], num_classes: int, source: Path | str
) -> None:
    """Clusters in range; a class has all its training rows in some, or none; its columns are the clusters chosen."""
    table, ks = arrays["hypotheses"], subclasses["ks"]
    train = np.flatnonzero(arrays["split"] == _TRAIN)
    classes = arrays["class_id"][train]
    sizes = np.bincount(classes, minlength=num_classes)
    for position, k in enumerate(ks):
        outside = (table[:, position] < -1) | (table[:, position] >= k)
        if outside.any():
            row = int(outside.argmax())
            refuse(source, "hypotheses", f"row {row} is {table[row, position]} under K = {k}, outside -1 to {k - 1}")
        held = np.bincount(classes[table[train, position] >= 0], minlength=num_classes)
        partial = (held != 0) & (held != sizes)
        if partial.any():
            refuse(source, "hypotheses", f"only some pictures of class {partial.argmax()} have a cluster under K = {k}")
    columns = {m["id"]: m["column"] for e in subclasses["classes"] for m in e["subclasses"] if "column" in m}
    # where each class's clusters lie: the hypothesis of its K, and the first column of that
    place = np.full((num_classes, 2), -1)
    for entry in subclasses["classes"]:
        if entry["k"] in ks and all("column" in member for member in entry["subclasses"]):
            place[entry["class_id"]] = ks.index(entry["k"]), first_column(ks, entry["k"])
    told = train[place[classes, 0] >= 0]
    position, start = place[arrays["class_id"][told]].T
    expected = start + table[told, position]
    stated = np.array([columns.get(identity, -1) for identity in arrays["subclass_id"][told].tolist()], np.int64)
    wrong = (table[told, position] < 0) | (stated != expected)
    if wrong.any():
        row = int(told[wrong.argmax()])
        refuse(source, "hypotheses", f"row {row} is in another cluster than the column of its subclass says")
