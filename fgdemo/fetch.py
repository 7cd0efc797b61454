"""Data sets that torchvision downloads, for the pictures that a checkpoint may not carry."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from ssl import SSLError
from typing import NamedTuple
from urllib.error import URLError

from fgdemo.errors import UserError

_ARCHIVES = (".tgz", ".gz")
_EVERY_S = 0.5


class Source(NamedTuple):
    """A class of torchvision.datasets, and how many bytes it downloads."""

    dataset: str
    size: int


# Only what can be had: torchvision's address of Stanford Cars is dead.
SOURCES = {
    "flowers102": Source("Flowers102", 344_862_509),
    "oxford_pets": Source("OxfordIIITPet", 811_092_049),
    "fgvc_aircraft": Source("FGVCAircraft", 2_753_340_328),
}


class Fetcher:
    """Downloads one data set at a time in a thread of its own, whoever asks. Safe to call from several threads.

    A data set appears in ``folder/NAME`` whole or not at all, in torchvision's layout and without the archives.

    Args:
        folder: where data sets go; made when the first one is fetched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._name = ""
        self._result: Future[None] | None = None

    def fetch(self, name: str) -> Iterator[int]:
        """Yield the bytes that have arrived, every half second, until the data set is there.

        Whoever asks for a data set that is being fetched waits for it too; when nobody waits any longer it goes on.

        Raises:
            UserError: torchvision does not download this data set, another one is being fetched, the download failed,
                or the folder cannot be written.
        """
        if name not in SOURCES:
            raise UserError(f"torchvision does not download {name}: give --data-root the folder of a copy.")
        with self._lock:
            if self._result is None or self._result.done():
                self._name, self._result = name, Future()
                arguments = (name, self._result)
                threading.Thread(target=self._run, args=arguments, name="fetch", daemon=True).start()
            elif self._name != name:
                raise UserError(f"{self._name} is being fetched: fetch {name} when it is there.")
            result = self._result
        while wait([result], timeout=_EVERY_S).not_done:
            yield _arrived(self._partial(name))
        result.result()

    def _partial(self, name: str) -> Path:
        return self.folder / f".{name}.partial"

    def _run(self, name: str, result: Future[None]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._download(name)
        except BaseException as error:
            result.set_exception(_told(name, self.folder, error))
        else:
            result.set_result(None)

    def _download(self, name: str) -> None:
        import torchvision.datasets
        from filelock import FileLock, Timeout

        partial, final = self._partial(name), self.folder / name
        try:
            # The lock is against another server of the same person.
            with FileLock(self.folder / f".{name}.lock", timeout=0):
                if final.exists():
                    return
                # What a killed process left may be incomplete in ways that torchvision does not notice.
                shutil.rmtree(partial, ignore_errors=True)
                try:
                    getattr(torchvision.datasets, SOURCES[name].dataset)(partial, download=True)
                    for archive in _archives(partial):
                        archive.unlink()
                    partial.rename(final)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        except Timeout as error:
            raise UserError(f"Another process is fetching {name}: wait until it is done.") from error


def _archives(folder: Path) -> list[Path]:
    """The archives that torchvision has downloaded, in the root or in the folder of the data set."""
    return [file for pattern in ("*", "*/*") for file in folder.glob(pattern) if file.suffix in _ARCHIVES]


def _arrived(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in _archives(folder))
    except OSError:  # the folder has just been moved into its place
        return 0


def _told(name: str, folder: Path, error: BaseException) -> UserError:
    """The one sentence for a person."""
    if isinstance(error, UserError):
        return error
    cause = error.reason if isinstance(error, URLError) else error
    reason = getattr(cause, "strerror", None) or str(cause).rstrip(".") or type(cause).__name__
    remedy = "try again, or give --data-root the folder of a copy"
    if isinstance(error, URLError | ConnectionError | TimeoutError | SSLError):
        text = f"nothing came from its server ({reason}); {remedy}"
    elif isinstance(error, OSError):
        text = f"{folder} cannot be written ({reason}); free some space, or set FGDEMO_HOME to another folder"
    else:
        text = f"torchvision gave up ({reason}); {remedy}"
    told = UserError(f"{name} could not be fetched: {text}.")
    told.__cause__ = error
    return told
