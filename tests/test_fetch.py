from __future__ import annotations

import errno
import inspect
import threading
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
import torchvision.datasets
from filelock import FileLock
from support.absent_pictures import FLOWERS, stand_in, with_archive

from fgdemo import fetch
from fgdemo.errors import UserError
from fgdemo.fetch import SOURCES, Fetcher


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """`install(*results)` puts a stand-in in place of torchvision's Flowers102; returns the roots it was given."""

    def put(*results) -> list[Path]:
        calls: list[Path] = []
        monkeypatch.setattr(torchvision.datasets, "Flowers102", stand_in(*results, calls=calls))
        return calls

    monkeypatch.setattr(fetch, "_EVERY_S", 0.01)
    return put


def raising(error: BaseException):
    def fail(root: Path) -> None:
        (root / FLOWERS).mkdir(parents=True)
        raise error

    return fail


def test_every_source_is_a_class_of_torchvision_that_downloads():
    for source in SOURCES.values():
        parameters = inspect.signature(getattr(torchvision.datasets, source.dataset)).parameters
        assert {"root", "download"} <= parameters.keys()
        assert source.size > 100_000_000


def test_a_data_set_appears_whole_and_without_its_archive(install, tmp_path: Path):
    archived, go_on = threading.Event(), threading.Event()

    def slow(root: Path) -> None:
        with_archive(root)
        archived.set()
        assert go_on.wait(30)

    calls = install(slow)
    fetcher = Fetcher(tmp_path / "data")
    waiting = fetcher.fetch("flowers102")
    next(waiting)
    assert archived.wait(30)
    assert next(waiting) == 5000
    assert not (tmp_path / "data" / "flowers102").exists()
    go_on.set()
    list(waiting)
    found = tmp_path / "data" / "flowers102"
    assert len(list((found / FLOWERS).iterdir())) == 12
    assert not (found / "flowers-102" / "102flowers.tgz").exists()
    assert [file.name for file in (tmp_path / "data").iterdir() if file.is_dir()] == ["flowers102"]
    # Once it is there nothing is downloaded again.
    list(fetcher.fetch("flowers102"))
    assert len(calls) == 1


def test_whoever_asks_meanwhile_waits_for_the_same_download(install, tmp_path: Path):
    go_on = threading.Event()
    calls = install(lambda root: (go_on.wait(30), with_archive(root)))
    fetcher = Fetcher(tmp_path)
    first, second = fetcher.fetch("flowers102"), fetcher.fetch("flowers102")
    assert [next(first), next(second)] == [0, 0]
    with pytest.raises(UserError, match="flowers102 is being fetched: fetch oxford_pets when it is there"):
        next(fetcher.fetch("oxford_pets"))
    # One of them goes away.
    first.close()
    go_on.set()
    list(second)
    assert len(calls) == 1
    assert (tmp_path / "flowers102" / FLOWERS).is_dir()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (URLError(OSError(-2, "Name or service not known")), r"nothing came from its server \(Name or service not"),
        (URLError("timed out"), r"nothing came from its server \(timed out\); try again, or give --data-root"),
        (HTTPError("https://x", 404, "Not Found", {}, None), r"nothing came from its server \(Not Found\)"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Connection reset by peer"),
        (TimeoutError(), r"nothing came from its server \(TimeoutError\)"),
        (OSError(errno.ENOSPC, "No space left on device"), r"cannot be written \(No space left on device\); free some"),
        (RuntimeError("File not found or corrupted."), r"torchvision gave up \(File not found or corrupted\); try"),
        (KeyError(), r"torchvision gave up \(KeyError\)"),
    ],
)
def test_a_failure_is_one_sentence_and_leaves_nothing_behind(install, tmp_path: Path, error, sentence: str):
    install(raising(error), with_archive)
    fetcher = Fetcher(tmp_path)
    with pytest.raises(UserError, match=sentence) as told:
        list(fetcher.fetch("flowers102"))
    assert str(told.value).startswith("flowers102 could not be fetched: ")
    assert [file for file in tmp_path.iterdir() if file.is_dir()] == []
    list(fetcher.fetch("flowers102"))
    assert (tmp_path / "flowers102").is_dir()


def test_what_a_killed_process_left_is_not_taken_for_the_data_set(install, tmp_path: Path):
    (tmp_path / ".flowers102.partial" / "flowers-102").mkdir(parents=True)
    (tmp_path / ".flowers102.partial" / "flowers-102" / "rest").write_text("")
    install(with_archive)
    list(Fetcher(tmp_path).fetch("flowers102"))
    assert not (tmp_path / "flowers102" / "flowers-102" / "rest").exists()


def test_a_folder_that_is_there_is_left_alone(install, tmp_path: Path):
    (tmp_path / "flowers102").mkdir()
    (tmp_path / "flowers102" / "mine").write_text("")
    calls = install(with_archive)
    list(Fetcher(tmp_path).fetch("flowers102"))
    assert calls == []
    assert [file.name for file in (tmp_path / "flowers102").iterdir()] == ["mine"]


def test_two_processes_do_not_fetch_at_once(install, tmp_path: Path):
    calls = install(with_archive)
    with FileLock(tmp_path / ".flowers102.lock"), pytest.raises(UserError, match="Another process is fetching flowers"):
        list(Fetcher(tmp_path).fetch("flowers102"))
    assert calls == []


def test_a_folder_that_cannot_be_made_is_named(install, tmp_path: Path):
    install(with_archive)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/data cannot be written .* FGDEMO_HOME"):
        list(Fetcher(tmp_path / "file" / "data").fetch("flowers102"))


@pytest.mark.parametrize("name", ["grocery_store", "stanford_cars", "../flowers102", ""])
def test_nothing_else_is_fetched(install, tmp_path: Path, name: str):
    calls = install(with_archive)
    with pytest.raises(UserError, match="torchvision does not download"):
        list(Fetcher(tmp_path).fetch(name))
    assert calls == []
    assert list(tmp_path.iterdir()) == []
