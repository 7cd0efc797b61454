"""Pictures of a gallery: the thumbnails a checkpoint carries, else made from the data set where a person has it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from fgdemo.data.images import decode_thumbnail, encode_thumbnail, open_image
from fgdemo.errors import UserError

if TYPE_CHECKING:
    from fgdemo.gallery import Gallery

SIZE = 128
"""Longer side of a thumbnail that is made from a file, in pixels."""
MAX_BYTES = 32_000_000
"""Made thumbnails held, together; some 10,000 of them."""
_LOOKED_FOR = 16


class Pictures:
    """Thumbnails of gallery rows. Safe to call from several threads; each decodes one file at a time.

    The key of a row is a POSIX path relative to the folder that its data set lies in; the first of the folders that
    holds such a file has the picture. Checkpoints come from anybody, so a key that names anything but a regular file
    inside a folder, also by a link that leads out of it, names no picture.

    Args:
        roots: folders of data sets. They are looked at anew each time, so what is put there appears.
        max_bytes: of the thumbnails held; those used longest ago are dropped.
    """

    def __init__(self, roots: Sequence[Path] = (), *, max_bytes: int = MAX_BYTES) -> None:
        self.roots = tuple(roots)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._made: OrderedDict[tuple[Path, int, int], bytes] = OrderedDict()

    def thumbnail(self, gallery: Gallery, row: int) -> bytes | None:
        """WebP bytes of a row's small picture; None where there is none, or what is there is no picture."""
        start, end = gallery.thumbnail_offsets[row : row + 2]
        stored = gallery.thumbnails[start:end].tobytes()
        return stored if stored and _is_picture(stored) else self._from_file(gallery.keys[row])

    def absent(self, gallery: Gallery) -> str | None:
        """The key of one training picture where the gallery shows none at all; None where it shows some.

        That is: the checkpoint carries none, and of a few spread over the gallery no root holds any.
        """
        rows = gallery.train_rows
        if gallery.thumbnail_offsets[-1] > 0 or not len(rows):
            return None
        tried = rows[np.linspace(0, len(rows) - 1, min(_LOOKED_FOR, len(rows))).astype(int)].tolist()
        return gallery.keys[tried[0]] if not any(self._file(gallery.keys[row]) for row in tried) else None

    def _from_file(self, key: str) -> bytes | None:
        file = self._file(key)
        if file is None:
            return None
        try:
            status = file.stat()
            # A file that was exchanged is another picture.
            mark = (file, status.st_mtime_ns, status.st_size)
            with self._lock:
                if mark in self._made:
                    self._made.move_to_end(mark)
                    return self._made[mark]
            data = encode_thumbnail(open_image(file), SIZE)
        except (UserError, OSError):
            return None
        self._keep(mark, data)
        return data

    def _keep(self, mark: tuple[Path, int, int], data: bytes) -> None:
        with self._lock:
            self._bytes += len(data) - len(self._made.pop(mark, b""))
            self._made[mark] = data
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._made.popitem(last=False)[1])

    def _file(self, key: str) -> Path | None:
        # As this system reads it: elsewhere than on POSIX a backslash divides too, and a path may start with a drive.
        path = PurePath(key)
        if path.anchor or ".." in path.parts:
            return None
        for root in self.roots:
            try:
                if os.path.isfile(root / path):
                    file = (root / path).resolve()
                    if file.is_relative_to(root.resolve()):
                        return file
            except (OSError, ValueError, RuntimeError):  # a name that no file can have, a loop of links
                continue
        return None


STORED = Pictures()
"""Those that checkpoints carry, and no others."""


def _is_picture(data: bytes) -> bool:
    try:
        decode_thumbnail(data)
    except UserError:
        return False
    return True
