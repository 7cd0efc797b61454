from __future__ import annotations

import io
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.absent_pictures import FLOWERS, write_bare, write_pictures
from support.absent_pictures import SIZE as FULL
from tiny_checkpoint import picture, write_tiny

import fgdemo.pictures
from fgdemo.checkpoint import read_checkpoint
from fgdemo.gallery import Gallery
from fgdemo.pictures import SIZE, STORED, Pictures


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery.from_checkpoint(read_checkpoint(write_bare(tmp_path_factory.mktemp("bare") / "bare")))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery.from_checkpoint(read_checkpoint(write_tiny(tmp_path_factory.mktemp("full") / "full")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "root")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    real = fgdemo.pictures.open_image

    def counted(file: Path) -> Image.Image:
        names.append(file.name)
        return real(file)

    monkeypatch.setattr(fgdemo.pictures, "open_image", counted)
    return names


def keyed(gallery: Gallery, key: str) -> Gallery:
    return replace(gallery, keys=[key] * len(gallery))


def colour(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), np.float64).mean((0, 1))


def test_what_the_checkpoint_carries_comes_first(full: Gallery, root: Path):
    start, end = full.thumbnail_offsets[4:6]
    stored = full.thumbnails[start:end].tobytes()
    assert STORED.thumbnail(full, 4) == stored
    assert Pictures([root]).thumbnail(keyed(full, f"{FLOWERS}/image_00.png"), 4) == stored


def test_stored_bytes_that_are_no_picture_count_as_none(full: Gallery, root: Path):
    broken = replace(keyed(full, f"{FLOWERS}/image_00.png"), thumbnails=np.zeros_like(full.thumbnails))
    assert STORED.thumbnail(broken, 4) is None
    assert Pictures([root]).thumbnail(broken, 4) is not None


def test_a_missing_one_is_made_small_from_its_own_file(bare: Gallery, root: Path):
    pictures = Pictures([root])
    for row in range(12):
        data = pictures.thumbnail(bare, row)
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size) == ("WEBP", (SIZE, round(SIZE * 128 / 192)))
        assert np.abs(colour(data) - np.asarray(picture(row, FULL), np.float64).mean((0, 1))).max() < 6
    assert STORED.thumbnail(bare, 0) is None


def test_the_first_root_that_holds_a_file_has_it_and_roots_may_come_later(bare: Gallery, root: Path, tmp_path: Path):
    pictures = Pictures([tmp_path / "later", root])
    before = pictures.thumbnail(bare, 0)
    (tmp_path / "later" / FLOWERS).mkdir(parents=True)
    Image.new("RGB", (50, 50), (9, 9, 200)).save(tmp_path / "later" / FLOWERS / "image_00.png")
    after = pictures.thumbnail(bare, 0)
    assert colour(before)[2] < 100 < colour(after)[2]
    assert pictures.thumbnail(bare, 1) is not None


def test_a_file_that_was_exchanged_is_another_picture(bare: Gallery, root: Path):
    pictures = Pictures([root])
    before = pictures.thumbnail(bare, 0)
    Image.new("RGB", (50, 50), (9, 9, 200)).save(root / FLOWERS / "image_00.png")
    assert pictures.thumbnail(bare, 0) != before


@pytest.mark.parametrize(
    "key",
    [
        "../secret.png",
        "flowers-102/../../secret.png",
        "flowers-102/../flowers-102/jpg/image_00.png",
        "{outside}/secret.png",
        "//{outside}/secret.png",
        "file.png",
        "folder/secret.png",
        "chain/secret.png",
        "loop.png",
        "flowers-102",
        "",
        ".",
        "/",
        "nothing.png",
        "nothing\0.png",
        "n" * 5000,
        "\ud800.png",
    ],
)
def test_no_key_leads_out_of_the_roots_or_to_an_error(bare: Gallery, root: Path, tmp_path: Path, key: str):
    picture(0).save(tmp_path / "secret.png")
    (root / "file.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path)
    (root / "chain").symlink_to(root / "folder")
    (root / "loop.png").symlink_to(root / "loop.png")
    gallery = keyed(bare, key.format(outside=tmp_path) if "{" in key else key)
    pictures = Pictures([root])
    assert pictures.thumbnail(gallery, 0) is None
    assert pictures.absent(gallery) == gallery.keys[0]


def test_links_inside_a_root_and_to_the_root_are_fine(bare: Gallery, root: Path, tmp_path: Path):
    (root / "same.png").symlink_to(root / FLOWERS / "image_00.png")
    (tmp_path / "link").symlink_to(root)
    for where in (root, tmp_path / "link"):
        assert Pictures([where]).thumbnail(keyed(bare, "same.png"), 0) is not None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files on this system")
def test_a_file_that_never_ends_is_not_read(bare: Gallery, root: Path):
    os.mkfifo(root / "pipe.png")
    assert Pictures([root]).thumbnail(keyed(bare, "pipe.png"), 0) is None


def test_a_damaged_file_is_no_picture_until_it_is_mended(bare: Gallery, root: Path):
    pictures, file = Pictures([root]), root / FLOWERS / "image_00.png"
    whole = file.read_bytes()
    for content in (b"", b"this is no picture", whole[:2000]):
        file.write_bytes(content)
        assert pictures.thumbnail(bare, 0) is None
    file.write_bytes(whole)
    assert pictures.thumbnail(bare, 0) is not None


def test_a_picture_is_decoded_once(bare: Gallery, root: Path, decoded: list[str]):
    pictures = Pictures([root])
    assert pictures.thumbnail(bare, 3) == pictures.thumbnail(bare, 3)
    assert decoded == ["image_03.png"]


def test_what_was_used_longest_ago_is_dropped_above_the_bound(bare: Gallery, root: Path, decoded: list[str]):
    sizes = [len(Pictures([root]).thumbnail(bare, row)) for row in range(3)]
    decoded.clear()
    pictures = Pictures([root], max_bytes=sum(sizes) - 1)
    for row in (0, 1, 0, 2, 0, 1):
        pictures.thumbnail(bare, row)
    assert decoded == ["image_00.png", "image_01.png", "image_02.png", "image_01.png"]
    assert pictures._bytes == sum(map(len, pictures._made.values())) <= sum(sizes) - 1


def test_one_above_the_bound_is_given_and_not_kept(bare: Gallery, root: Path):
    pictures = Pictures([root], max_bytes=10)
    assert pictures.thumbnail(bare, 0) is not None
    assert (pictures._bytes, len(pictures._made)) == (0, 0)


def test_many_threads_get_the_same_as_one(bare: Gallery, root: Path):
    alone = [Pictures([root]).thumbnail(bare, row) for row in range(12)]
    shared = Pictures([root], max_bytes=sum(map(len, alone[:5])))
    start, wrong = threading.Barrier(6), []

    def ask(seed: int) -> None:
        start.wait()
        for row in np.random.default_rng(seed).integers(0, 12, 40).tolist():
            if shared.thumbnail(bare, row) != alone[row]:
                wrong.append(row)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert shared._bytes == sum(map(len, shared._made.values())) <= shared._max_bytes


def test_absent_is_said_only_where_nothing_is_there(bare: Gallery, full: Gallery, root: Path, tmp_path: Path):
    assert STORED.absent(bare) == f"{FLOWERS}/image_00.png"
    assert Pictures([tmp_path]).absent(bare) == f"{FLOWERS}/image_00.png"
    assert Pictures([root]).absent(bare) is None
    assert STORED.absent(full) is None
    # A copy in part has pictures too.
    for file in sorted((root / FLOWERS).iterdir())[:-4]:
        file.unlink()
    assert Pictures([root]).absent(bare) is None
    assert STORED.absent(replace(bare, split=np.ones_like(bare.split))) is None
