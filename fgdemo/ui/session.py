"""What the tabs share: the checkpoints to choose from, the loaded ones, and how a person's changes are kept.

For a tab module (``build(app, picker)``, called inside its ``gr.Tab``):

- ``picker`` holds the *name* of the chosen checkpoint, a string. Pass it as an input; it is what ``app`` takes:
  ``app.classifier(name)`` loads (or finds) it, with ``.gallery``, ``.classes``, ``.config``.
- ``picker.change`` tells a tab that another checkpoint was chosen, also on the first load of the page.
- ``app.keep(value) -> id`` and ``app.recall(id) -> value`` hold large results between two events of one browser
  session, whose own ``gr.State`` carries only the id.
- ``app.pictures`` has the thumbnails of galleries; `fgdemo.ui.pictures` says what stands where there are none.
- ``app.save(name, gallery) -> new name`` writes a new version in the user's folder, after which
  ``app.picker_update(new name)`` is the value for the output ``picker``.
- Wrap every callback in ``reported``: a UserError becomes the message that the person sees. Listeners that run a
  model or a clustering get ``**MODEL_WORK``, so that they wait for each other; helpers get ``**PRIVATE``.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from fgdemo.errors import UserError
from fgdemo.fetch import SOURCES, Fetcher
from fgdemo.pictures import Pictures

if TYPE_CHECKING:
    from fgdemo.gallery import Gallery
    from fgdemo.predict import Classifier

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# What a newcomer meets first, wherever the names sort: all pictures at hand, then real photographs.
FIRST = ("scenes-classify", "flowers102-voting")

MODEL_WORK: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}

_LOADED = 2
_KEPT = 64
_CACHED = 16
_P = ParamSpec("_P")
_R = TypeVar("_R")

logger = logging.getLogger(__name__)


def user_folder() -> Path:
    """Where a person's own versions go: ``checkpoints`` in ``$FGDEMO_HOME`` or ``~/.local/share/fgdemo``."""
    return _home() / "checkpoints"


def data_folder() -> Path:
    """Where fetched data sets go: ``data`` in the same place."""
    return _home() / "data"


def _home() -> Path:
    home = os.environ.get("FGDEMO_HOME")
    return (Path(home) if home else Path("~/.local/share/fgdemo")).expanduser()


def reported(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Show a UserError raised in a callback as a message; its sentence is all that leaves the server."""
    import gradio as gr

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


def quietly(function: Callable[_P, _R], otherwise: _R) -> Callable[_P, _R]:
    """For what follows the choice of a checkpoint: one listener tells that it cannot be loaded, the others do not."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except UserError:
            return otherwise

    return call


class App:
    """Checkpoints by name, with the two used last kept loaded. Safe to call from several threads.

    Args:
        folders: where checkpoints are looked for, in this order.
        saved: where new versions are written; also looked in, last.
        device: a torch device, or "auto".
        first: folder or Hub id of a checkpoint to list first, wherever it lies.
        data_roots: folders in which pictures are looked for that a checkpoint does not carry.
        data: where fetched data sets lie; also looked in, last.
        fetch: whether a visitor may have torchvision download a data set of hundreds of megabytes to there.
    """

    def __init__(
        self,
        folders: Sequence[Path] = (Path("checkpoints"),),
        *,
        saved: Path | None = None,
        device: str = "auto",
        first: str | None = None,
        data_roots: Sequence[Path] = (),
        data: Path | None = None,
        fetch: bool = False,
    ) -> None:
        self.saved = saved if saved is not None else user_folder()
        self.folders = (*folders, self.saved)
        self.device = device
        self.first = first
        self.data_roots = tuple(data_roots)
        data = data if data is not None else data_folder()
        self.pictures = Pictures([*data_roots, *(data / name for name in SOURCES)])
        self.fetcher = Fetcher(data) if fetch else None
        self._lock = threading.Lock()
        self._listing = threading.Lock()
        self._known: dict[str, Path] = {}
        self._first_path: Path | None = None
        self._loaded: OrderedDict[Path, Future[Classifier]] = OrderedDict()
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._cached: OrderedDict[Hashable, Any] = OrderedDict()

    def checkpoints(self, *, refresh: bool = False) -> dict[str, Path]:
        """Folder of every checkpoint by the name that the picker shows, in its order; `refresh` looks again.

        Raises:
            UserError: `first` cannot be found.
        """
        with self._listing:
            if refresh or not self._known:
                self._known = self._list()
            return self._known

    def name(self, name: str | None) -> str:
        """The name itself where it is listed, the first one for None. Nothing else can be opened.

        Raises:
            UserError: no such name, or no checkpoint at all.
        """
        return self._entry(name)[0]

    def classifier(self, name: str | None) -> Classifier:
        """The loaded checkpoint; two threads that ask for the same one wait for one loading.

        Raises:
            UserError: no such checkpoint, or it cannot be loaded.
        """
        known, path = self._entry(name)
        with self._lock:
            future = self._loaded.get(path)
            mine = future is None
            if future is None:
                future = self._loaded[path] = Future()
            self._loaded.move_to_end(path)
            while len(self._loaded) > _LOADED:
                self._loaded.popitem(last=False)
        if mine:
            self._load(known, path, future)
        return future.result()

    def preload(self) -> threading.Thread:
        """Load the first checkpoint in the background; what fails there is told to whoever asks for it next."""

        def run() -> None:
            try:
                self.classifier(None)
            except UserError as error:
                logger.warning("%s", error)

        thread = threading.Thread(target=run, name="preload", daemon=True)
        thread.start()
        return thread

    def picker_update(self, name: str | None = None) -> Any:
        """The picker with the checkpoints that are there now and ``name`` (the first one when None) chosen."""
        import gradio as gr

        names = list(self.checkpoints(refresh=True))
        return gr.update(choices=names, value=name if name in names else next(iter(names), None))

    def save(self, name: str, gallery: Gallery) -> str:
        """Write the checkpoint ``name`` with another gallery as a new version in the user's folder.

        Returns:
            The name of the new version.

        Raises:
            UserError: no such checkpoint, or the folder cannot be written.
        """
        from fgdemo.checkpoint import write_checkpoint
        from fgdemo.checkpoint.atomic import sibling_names
        from fgdemo.checkpoint.schema import WEIGHTS_FILE
        from fgdemo.checkpoint.tensors import read_tensors

        source = self.classifier(name).checkpoint
        taken = {known.rpartition("/")[2] for known in self.checkpoints()}
        names = sibling_names(name.rpartition("/")[2])
        target = next(candidate for candidate in names if candidate not in taken)
        stored = read_tensors(source.directory / WEIGHTS_FILE).values()
        halved = any(str(tensor.dtype) == "torch.float16" for tensor in stored)
        written = write_checkpoint(
            self.saved / target,
            config=source.config,
            weights=source.weights(),
            gallery=gallery.to_tensors(),
            subclasses=gallery.subclasses,
            dtype="float16" if halved else "float32",
        )
        known_now = self.checkpoints(refresh=True)
        return next(known for known, path in known_now.items() if path.resolve() == written.resolve())

    def keep(self, value: Any) -> str:
        """Hold a result and return the id that finds it again; the ones used longest ago are dropped."""
        identity = secrets.token_urlsafe(16)
        with self._lock:
            _put(self._kept, identity, value, _KEPT)
        return identity

    def once(self, key: Hashable, make: Callable[[], _R]) -> _R:
        """What `make` gives, computed again only where it is no longer held under this key."""
        with self._lock:
            if key in self._cached:
                self._cached.move_to_end(key)
                return self._cached[key]
        value = make()
        with self._lock:
            _put(self._cached, key, value, _CACHED)
        return value

    def recall(self, identity: str) -> Any:
        """What was kept under this id.

        Raises:
            UserError: it is no longer held.
        """
        with self._lock:
            if identity not in self._kept:
                raise UserError("This result is no longer held by the server; run it again.")
            self._kept.move_to_end(identity)
            return self._kept[identity]

    def _entry(self, name: str | None) -> tuple[str, Path]:
        known = self.checkpoints()
        if isinstance(name, str) and name not in known:
            # it may have been written since they were listed
            known = self.checkpoints(refresh=True)
        if not known:
            places = ", ".join(str(folder) for folder in self.folders)
            raise UserError(f"There is no checkpoint in {places}; train and export one, or give --checkpoint.")
        if name is None:
            return next(iter(known.items()))
        if not isinstance(name, str) or name not in known:
            shown = name if isinstance(name, str) and len(name) < 100 else "of that name"
            raise UserError(f"There is no checkpoint {shown} here; choose one of {', '.join(known)}.")
        return name, known[name]

    def _list(self) -> dict[str, Path]:
        from fgdemo.checkpoint import list_checkpoints
        from fgdemo.checkpoint.hub import resolve

        found: dict[str, Path] = {}
        if self.first is not None:
            if self._first_path is None:
                self._first_path = resolve(self.first)
            found[_own_name(self.first)] = self._first_path
        place = {name: position for position, name in enumerate(FIRST)}
        # A stable sort: the others stay in the order of their folders and names.
        for entry in sorted(list_checkpoints(*self.folders), key=lambda entry: place.get(entry.name, len(FIRST))):
            if any(path.resolve() == entry.path.resolve() for path in found.values()):
                continue
            qualified = f"{entry.path.parent.name}/{entry.name}"
            found.setdefault(qualified if entry.name in found else entry.name, entry.path)
        return found

    def _load(self, name: str, path: Path, future: Future[Classifier]) -> None:
        from fgdemo.predict import load

        try:
            future.set_result(load(path, device=self.device))
        except BaseException as error:
            with self._lock:
                if self._loaded.get(path) is future:
                    del self._loaded[path]
            # Where the server keeps its files is nothing that a visitor has to learn.
            told = UserError(str(error).replace(str(path), name)) if isinstance(error, UserError) else error
            future.set_exception(told)


def _put(store: OrderedDict[Any, Any], key: Hashable, value: Any, most: int) -> None:
    store[key] = value
    while len(store) > most:
        store.popitem(last=False)


def _own_name(path_or_hub_id: str) -> str:
    """The checkpoint's name without the folder or user it belongs to, and without a revision."""
    local = Path(path_or_hub_id).expanduser()
    if local.is_dir():
        return local.resolve().name
    return path_or_hub_id.partition("@")[0].rstrip("/").rpartition("/")[2]
