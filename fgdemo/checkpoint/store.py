"""Write a checkpoint atomically, read one strictly, list those of a folder."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

import fgdemo
from fgdemo.checkpoint import schema
from fgdemo.checkpoint.atomic import write_directory
from fgdemo.checkpoint.card import model_card
from fgdemo.checkpoint.tensors import read_tensors, validate_gallery
from fgdemo.errors import UserError

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")
_RECORDED_PACKAGES = ("torch", "torchvision", "timm", "safetensors", "numpy")


@dataclass(frozen=True)
class Checkpoint:
    """One checked checkpoint directory; the tensors stay on disk until they are asked for.

    Attributes:
        directory: where the five files lie.
        config: config.json, validated.
        subclasses: subclasses.json, validated.
        card: README.md.
        revision: commit on the Hub when the directory is a downloaded snapshot, else None.
    """

    directory: Path
    config: dict[str, Any]
    subclasses: dict[str, Any]
    card: str
    revision: str | None = None

    def weights(self) -> dict[str, torch.Tensor]:
        """Weights by name on the CPU; float16 is widened to float32, integer buffers stay as they are."""
        tensors = read_tensors(self.directory / schema.WEIGHTS_FILE)
        return {name: t.float() if t.is_floating_point() else t.clone() for name, t in tensors.items()}

    def gallery_tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of the gallery, memory-mapped."""
        return read_tensors(self.directory / schema.GALLERY_FILE)


class CheckpointEntry(NamedTuple):
    name: str
    path: Path
    title: str


def write_checkpoint(
    directory: str | Path,
    *,
    config: dict[str, Any],
    weights: Mapping[str, torch.Tensor],
    gallery: Mapping[str, torch.Tensor | np.ndarray],
    subclasses: dict[str, Any],
    card: str | None = None,
    dtype: str = "float32",
) -> Path:
    """Write the five files of a checkpoint; the directory appears complete or not at all.

    ``config`` needs no ``fgdemo.sha256`` and no ``fgdemo.versions``: they are filled in here, as is
    ``fgdemo.schema``. The given objects are not changed.

    Args:
        directory: where to write; a taken name gets a sibling ``NAME-v2``, ``NAME-v3`` ...
        weights: by name, any device; floating-point tensors are stored as ``dtype``.
        gallery: the tensors of ``Gallery.to_tensors()``.
        card: text of README.md; the model card made from ``config`` and ``subclasses`` when None.
        dtype: "float32" or "float16".

    Returns:
        The directory that was written.

    Raises:
        UserError: weights not finite in ``dtype``, inconsistent parts, or a file system that refuses.
    """
    if dtype not in DTYPES:
        raise UserError(f'Weights cannot be stored as "{dtype}"; choose one of {", ".join(DTYPES)}.')
    config = copy.deepcopy(config)
    ours = config["fgdemo"]
    ours["schema"] = schema.SCHEMA_VERSION
    ours["versions"] = _versions()
    ours["sha256"] = dict.fromkeys(schema.TENSOR_FILES, "0" * 64)
    stored_weights = {name: _stored(name, tensor, DTYPES[dtype]) for name, tensor in weights.items()}
    stored_gallery = {name: torch.as_tensor(tensor).contiguous() for name, tensor in gallery.items()}
    # The same checks as on reading, on what JSON makes of the values, so that what is written can be read.
    config = schema.validate_config(_through_json(config, schema.CONFIG_FILE))
    subclasses = _through_json(subclasses, schema.SUBCLASSES_FILE)
    schema.validate_subclasses(subclasses, config["num_classes"])
    validate_gallery(stored_gallery, config, subclasses)
    text = model_card(config, subclasses) if card is None else card

    def fill(folder: Path) -> None:
        save_file(stored_weights, folder / schema.WEIGHTS_FILE, metadata={"format": "pt"})
        save_file(stored_gallery, folder / schema.GALLERY_FILE)
        config["fgdemo"]["sha256"] = {name: file_sha256(folder / name) for name in schema.TENSOR_FILES}
        for name, value in ((schema.CONFIG_FILE, config), (schema.SUBCLASSES_FILE, subclasses)):
            (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / schema.CARD_FILE).write_text(text, encoding="utf-8")

    return write_directory(Path(directory), fill)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read and check a checkpoint directory; nothing in it is ever unpickled.

    Both tensor files are read through once for their SHA-256: milliseconds for megabytes, about a second
    for each gigabyte. Whether the weights fit the network is for the network's strict load to say.

    Raises:
        UserError: the first thing that is missing, malformed, inconsistent or of a newer schema.
    """
    directory = Path(path).expanduser()
    config = read_config(directory)
    subclasses = schema.read_json(directory / schema.SUBCLASSES_FILE)
    schema.validate_subclasses(subclasses, config["num_classes"], directory / schema.SUBCLASSES_FILE)
    read_tensors(directory / schema.WEIGHTS_FILE)
    gallery = read_tensors(directory / schema.GALLERY_FILE)
    for name in schema.TENSOR_FILES:
        if file_sha256(directory / name) != config["fgdemo"]["sha256"][name]:
            schema.refuse(
                directory / name,
                "",
                f"its SHA-256 is not the one in {schema.CONFIG_FILE}, so it is damaged or was exchanged",
                "copy or export the checkpoint again",
            )
    validate_gallery(gallery, config, subclasses, directory / schema.GALLERY_FILE)
    try:
        card = (directory / schema.CARD_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{directory / schema.CARD_FILE} cannot be read ({error.strerror}).") from error
    return Checkpoint(directory, config, subclasses, card, _snapshot_revision(directory))


def read_config(directory: Path) -> dict[str, Any]:
    """The validated config.json of a directory that holds all five files.

    Raises:
        UserError: not a directory, a missing file, or an invalid config.json.
    """
    if not directory.is_dir():
        problem = "is a file, not a folder" if directory.exists() else "does not exist"
        raise UserError(f"The checkpoint folder {directory} {problem}; give the folder that holds config.json.")
    missing = [name for name in schema.FILES if not (directory / name).is_file()]
    if missing:
        found = sorted(entry.name for entry in directory.iterdir() if entry.suffix in _PICKLES)
        if found and set(missing) & set(schema.TENSOR_FILES):
            raise UserError(
                f"The folder {directory} has {found[0]} but no {missing[0]}; pickles are never opened: "
                "convert it to safetensors."
            )
        raise UserError(
            f"The folder {directory} is not a complete checkpoint: {', '.join(missing)} is missing; "
            "copy or export it again."
        )
    return schema.validate_config(schema.read_json(directory / schema.CONFIG_FILE), directory / schema.CONFIG_FILE)


def list_checkpoints(*directories: str | Path) -> list[CheckpointEntry]:
    """Checkpoints directly inside the given folders, in the order of the folders and then by name.

    Only config.json is read. A folder that does not exist is empty; a broken checkpoint is left out and its
    reason logged as a warning; hidden folders (unfinished writes) and those without a config.json are passed
    over.
    """
    entries = []
    for parent in map(Path, directories):
        found = parent.expanduser().glob(f"[!.]*/{schema.CONFIG_FILE}")
        for directory in sorted(config.parent for config in found):
            try:
                entries.append(CheckpointEntry(directory.name, directory, schema.title(read_config(directory))))
            except UserError as error:
                logger.warning("Left out the checkpoint %s: %s", directory.name, error)
    return entries


def file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _snapshot_revision(directory: Path) -> str | None:
    """The commit of a snapshot in the Hub's cache, whose layout is ``snapshots/<commit>/<files>``."""
    in_cache = directory.parent.name == "snapshots" and _COMMIT.fullmatch(directory.name)
    return directory.name if in_cache else None


def _stored(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    # A copy even where nothing changes: safetensors refuses tensors that share memory (tied weights).
    stored = tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True).contiguous()
    if not stored.isfinite().all():
        remedy = "it overflows float16: store float32" if tensor.isfinite().all() else "the training has diverged"
        raise UserError(f'Nothing was saved: the weight "{name}" is not finite ({remedy}).')
    return stored


def _through_json(value: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        text = json.dumps(value, allow_nan=False)
        # A recorded command line may carry an access token; it must not travel with the checkpoint.
        return json.loads(_TOKEN.sub("hf_REDACTED", text))
    except (TypeError, ValueError) as error:
        schema.refuse(name, "", f"a value in it cannot be stored ({error})")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "fgdemo": fgdemo.__version__}
    for package in _RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
