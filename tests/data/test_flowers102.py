from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError


@pytest.fixture
def flowers(tmp_path, write_picture):
    """Nine pictures of three classes in torchvision's layout."""
    for i in range(1, 10):
        write_picture(tmp_path / "flowers-102" / "jpg" / f"image_{i:05d}.jpg")
    labels = np.array([[1, 2, 3, 1, 2, 3, 1, 2, 3]], dtype=np.uint8)
    savemat(tmp_path / "flowers-102" / "imagelabels.mat", {"labels": labels})
    ids = {"trnid": [[3, 1, 2]], "valid": [[6, 5, 4]], "tstid": [[7, 8, 9]]}
    savemat(tmp_path / "flowers-102" / "setid.mat", {k: np.array(v, dtype=np.uint16) for k, v in ids.items()})
    return tmp_path


def test_official_splits_and_labels(flowers):
    catalogue = load_catalogue("flowers102", flowers, seed=4)
    assert catalogue.keys[0] == "flowers-102/jpg/image_00001.jpg"
    assert catalogue.fine.tolist() == [0, 1, 2] * 3
    assert catalogue.split.tolist() == ["train"] * 3 + ["val"] * 3 + ["test"] * 3
    assert catalogue.class_names("fine") == ("pink primrose", "hard-leaved pocket orchid", "canterbury bells")
    assert not catalogue.publishable
    assert catalogue.reader(8).size == (12, 10)


def test_test_pictures_that_other_splits_hold_are_left_out(flowers, monkeypatch):
    monkeypatch.setattr("fgdemo.data.flowers102.SEEN_ELSEWHERE", (2, 8))
    catalogue = load_catalogue("flowers102", flowers)
    assert [key[-9:-4] for key in catalogue.keys] == [
        "00001",
        "00002",
        "00003",
        "00004",
        "00005",
        "00006",
        "00007",
        "00009",
    ]
    assert catalogue.fine.tolist() == [0, 1, 2, 0, 1, 2, 0, 2]
    assert catalogue.split.tolist() == ["train"] * 3 + ["val"] * 3 + ["test"] * 2
    assert catalogue.reader(7).size == (12, 10)


def test_agrees_with_torchvision(flowers, monkeypatch):
    from torchvision.datasets import Flowers102

    monkeypatch.setattr(Flowers102, "_check_integrity", lambda self: True)
    catalogue = load_catalogue("flowers102", flowers)
    for split in ("train", "val", "test"):
        theirs = Flowers102(flowers, split=split)
        label_of = dict(zip((p.name for p in theirs._image_files), theirs._labels, strict=True))
        rows = catalogue.rows(split)
        ours = {catalogue.keys[r].rsplit("/", 1)[1]: int(catalogue.fine[r]) for r in rows}
        assert ours == label_of


def test_names_without_torchvisions_list(flowers, monkeypatch):
    from torchvision.datasets import Flowers102

    monkeypatch.delattr(Flowers102, "classes", raising=False)
    assert load_catalogue("flowers102", flowers).class_names("fine") == ("flower 1", "flower 2", "flower 3")
    (flowers / "class_names.txt").write_text("rose\ntulip\nlily\n")
    assert load_catalogue("flowers102", flowers).class_names("fine") == ("rose", "tulip", "lily")


@pytest.mark.parametrize("missing", ["imagelabels.mat", "setid.mat", "jpg"])
def test_missing_part_gives_path_way_and_size(flowers, missing):
    path = flowers / "flowers-102" / missing
    path.rename(flowers / "aside")
    with pytest.raises(UserError, match=r"download=True.*330 MB") as caught:
        load_catalogue("flowers102", flowers)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a matlab file at all" * 20])
def test_damaged_label_file_is_named(flowers, content):
    (flowers / "flowers-102" / "setid.mat").write_bytes(content)
    with pytest.raises(UserError, match=r"setid\.mat is damaged"):
        load_catalogue("flowers102", flowers)


def test_ids_out_of_range_and_left_over(flowers):
    path = flowers / "flowers-102" / "setid.mat"
    savemat(path, {"trnid": [[1, 2, 3]], "valid": [[4, 5, 6]], "tstid": [[7, 8, 10]]})
    with pytest.raises(UserError, match=r"outside 1\.\.9"):
        load_catalogue("flowers102", flowers)
    savemat(path, {"trnid": [[1, 2, 3]], "valid": [[4, 5, 6]], "tstid": [[7, 8]]})
    with pytest.raises(UserError, match="no split"):
        load_catalogue("flowers102", flowers)
