"""Write a whole directory so that it appears complete or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from fgdemo.errors import UserError

# A killed writer leaves its temporary folder; one older than this has no living owner.
_ABANDONED_AFTER_S = 24 * 3600
_VERSION = re.compile(r"(?P<stem>.+)-v(?P<number>[1-9][0-9]*)")


def sibling_names(name: str) -> Iterator[str]:
    """``name`` itself, then its versions: ``x``, ``x-v2``, ``x-v3`` ...; ``x-v4`` goes on with ``x-v5``."""
    yield name
    match = _VERSION.fullmatch(name)
    stem, number = (match["stem"], int(match["number"])) if match else (name, 1)
    while True:
        number += 1
        yield f"{stem}-v{number}"


def write_directory(target: Path, fill: Callable[[Path], None]) -> Path:
    """Let ``fill`` write files into a hidden temporary sibling, then move it into place in one rename.

    What exists is never touched: where ``target`` is taken (anything but an empty folder), the next free
    ``NAME-v2``, ``NAME-v3`` ... is used. Files and folders reach the disk before the rename and the rename
    before the return. On failure nothing is left behind.

    Returns:
        The folder that now holds the files.

    Raises:
        UserError: no space, no permission, or another fault of the file system.
    """
    target = Path(os.path.abspath(target.expanduser()))
    parent = target.parent
    temporary = parent / f".{target.name}.tmp-{secrets.token_hex(6)}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent, target.name)
        temporary.mkdir()
        fill(temporary)
        # safetensors creates its files for the owner alone; the folder's mode carries the umask.
        mode = temporary.stat().st_mode & 0o666
        for file in temporary.iterdir():
            file.chmod(mode)
            _sync(file)
        _sync(temporary)
        names = sibling_names(target.name)
        final = next(parent / name for name in names if _move(temporary, parent / name))
        _sync(parent)
        return final
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"Nothing was saved: {target} cannot be written ({reason}); free some space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(source: Path, final: Path) -> bool:
    """Rename a folder unless the name is taken: the system decides, so two writers cannot collide."""
    try:
        source.rename(final)
    except OSError:
        if os.path.lexists(final):
            return False
        raise
    return True


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows has no handle on a folder to flush
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_abandoned(parent: Path, name: str) -> None:
    prefix = f".{name}.tmp-"
    for entry in parent.iterdir():
        with contextlib.suppress(OSError):
            if entry.name.startswith(prefix) and time.time() - entry.stat().st_mtime > _ABANDONED_AFTER_S:
                shutil.rmtree(entry)
