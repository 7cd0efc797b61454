"""Drawn pictures kept on disk, so that every epoch but the first reads instead of drawing."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL

CHUNK = 64

_log = logging.getLogger(__name__)


def user_cache_directory() -> Path:
    """`$XDG_CACHE_HOME/fgdemo`, or `~/.cache/fgdemo`, or a temporary folder for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "fgdemo"
    try:
        return Path.home() / ".cache" / "fgdemo"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "fgdemo"


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Changes with anything that can change a pixel: the code of this package and the version of Pillow."""
    digest = hashlib.sha256(PIL.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]


class ArrayCache:
    """Arrays by name in one folder: made when first asked for, then memory-mapped.

    A file that is missing, cut short or not the array it should be is made anew. Where the folder cannot be
    written, `get` returns the array just made, and after the first failure `writable` is False. Never
    unpickles. Several processes may share a folder: files appear whole or not at all.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.writable = True

    def get(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype | type, make: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """The array `name`, of the given shape and dtype; read-only where it comes from disk."""
        path = self.directory / f"{name}.npy"
        found = _load(path, shape, np.dtype(dtype))
        if found is not None:
            return found
        array = make()
        if self.writable:
            try:
                _save(path, array)
            except OSError as error:
                self.writable = False
                _log.warning("The scenes are drawn anew in every run: %s cannot be written (%s).", path, error)
        return array

    def has(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> bool:
        """Whether `get` would find the array on disk."""
        return _load(self.directory / f"{name}.npy", shape, np.dtype(dtype)) is not None


def _load(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(array, np.ndarray) and array.shape == shape and array.dtype == dtype
    return array if fits else None


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
