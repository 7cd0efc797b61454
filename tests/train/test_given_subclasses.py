"""Subclasses that a person has looked at: read by key, kept through every division and into the checkpoint."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from fgdemo.checkpoint import read_checkpoint, write_checkpoint
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery
from tests.support.runs import data_info
from tests.train.test_fgdcc import SMALL
from train.given_subclasses import GivenSubclasses
from train.methods import Fgdcc
from train.methods.fgdcc import FgdccOptions
from train.subclass_partition import Rules, SubclassPartition

DATA = data_info("ab", 40)


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("key", "subclass"), *rows])
    return str(path)


def features() -> torch.Tensor:
    """(40, 2): both classes lie in two blobs, left and right, dealt out in turns of two."""
    side = torch.arange(40) // 2 % 2
    return torch.stack([side * 10.0, torch.arange(40) % 7 * 0.1], 1)


def partition(path: str, lock: str) -> SubclassPartition:
    given = GivenSubclasses.read(path, DATA, lock)
    return SubclassPartition(DATA.targets, 2, Rules((1, 2, 3), "silhouette", 1, 2), given)


def some(tmp_path: Path) -> str:
    """Of class a: four left pictures and one right one are "x", two right ones "y"; of b nothing is given."""
    rows = [(f"{i}.png", "x") for i in (0, 4, 8, 12, 2)] + [(f"{i}.png", "y") for i in (6, 10)]
    return write(tmp_path / "given.csv", [*rows, ("999.png", "x"), ("14.png", "")])


def test_a_table_is_read_by_key(tmp_path: Path) -> None:
    given = GivenSubclasses.read(some(tmp_path), DATA, "all")
    assert np.flatnonzero(given.clusters == 0).tolist() == [0, 2, 4, 8, 12]
    assert np.flatnonzero(given.clusters == 1).tolist() == [6, 10]
    assert given.ks == {0: 2}
    assert given.locked.sum() == 7
    (entry,) = given.document["classes"]
    assert [(m["name"], m["size"]) for m in entry["subclasses"]] == [("x", 5), ("y", 2)]


def test_locked_pictures_stay_and_the_others_go_where_they_are_near(tmp_path: Path) -> None:
    divided = partition(some(tmp_path), "all")
    for _ in range(2):
        divided.update(features(), challenge=True, choose=True, seed=0)
    own, left = divided.own_clusters(), features()[:, 0].numpy() < 5
    of_a = DATA.targets == 0
    assert divided.chosen.tolist() == [2, 2]
    assert own[2] == 0, "a right picture that a person put among the left ones"
    free = of_a & (np.arange(40) != 2)
    assert (own[free & left] == 0).all()
    assert (own[free & ~left] == 1).all()
    # the other class was divided as always
    assert len(set(own[~of_a & left])) == len(set(own[~of_a & ~left])) == 1
    # of the class with given subclasses, only that number of them stands
    assert divided.active()[0].tolist() == [False, True, True, False, False, False]
    assert divided.active()[1].all()


def test_without_a_lock_it_is_a_start(tmp_path: Path) -> None:
    divided = partition(some(tmp_path), "none")
    assert divided.clusters[2, 1] == 0
    divided.update(features(), challenge=False, choose=True, seed=0)
    own = divided.own_clusters()
    assert own[2] == own[6] == 1, "ids descend from those given, pictures are free"
    assert own[0] == 0
    assert divided.active().all()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("other.png", "x")], "no picture of the training split"),
        ([], "no picture of the training split"),
    ],
)
def test_tables_that_say_nothing(tmp_path: Path, rows: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        GivenSubclasses.read(write(tmp_path / "given.csv", rows), DATA, "all")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("picture,group\na,b\n", encoding="utf-8")
    with pytest.raises(UserError, match='"key" and "subclass"'):
        GivenSubclasses.read(str(path), DATA, "all")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a table"):
        GivenSubclasses.read(str(path), DATA, "all")
    with pytest.raises(UserError, match=r"missing\.csv"):
        GivenSubclasses.read(str(tmp_path / "missing.csv"), DATA, "all")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lock": "none"}, "--lock none is about"),
        ({"subclasses": "GIVEN", "ks": (1,)}, "--ks 1 leaves every class whole"),
        ({"subclasses": "GIVEN", "partition": "shuffled"}, "leave out --subclasses"),
    ],
)
def test_refused_options(tmp_path: Path, options: dict, said: str) -> None:
    path = some(tmp_path)
    options = {name: path if value == "GIVEN" else value for name, value in options.items()}
    with pytest.raises(UserError, match=said):
        Fgdcc(FgdccOptions(**options), DATA)


def test_moved_pictures_are_found_where_a_person_put_them(tmp_path: Path, train: Callable[..., Path]) -> None:
    """Ten pictures are moved and a subclass is named; after training again they, its id and its name are there."""
    train = partial(train, method="fgdcc", small=SMALL)
    words = ["--ks", "2", "3", "--start-epoch", "0", "--epochs", "2"]
    first = read_checkpoint(train(*words, name="first", export=True) / "checkpoint")
    gallery = Gallery.from_checkpoint(first)
    entry = first.subclasses["classes"][0]
    source, target = (member["id"] for member in entry["subclasses"][:2])
    moved = np.flatnonzero(gallery.subclass_id == source)[:10]
    ids = np.array(gallery.subclass_id)
    ids[moved] = target
    entry["subclasses"][1] |= {"name": "looked at", "edited": True}
    for member in entry["subclasses"]:
        # what the head says of subclasses is dropped once a person has edited
        del member["column"]
    for member in entry["subclasses"][:2]:
        member["size"] = int((ids == member["id"]).sum())
    edited = gallery.with_subclasses(ids, first.subclasses)
    folder = write_checkpoint(
        tmp_path / "edited",
        config=first.config,
        weights=first.weights(),
        gallery=edited.to_tensors(),
        subclasses=edited.subclasses,
    )
    keys = {gallery.keys[row] for row in np.flatnonzero(ids == target)}
    for lock in ("all", "edited"):
        run = train(*words, "--seed", "1", "--subclasses", str(folder), "--lock", lock, name=lock, export=True)
        again = read_checkpoint(run / "checkpoint")
        found = Gallery.from_checkpoint(again)
        there = {found.keys[row] for row in np.flatnonzero(found.subclass_id == target)}
        assert keys <= there
        if lock == "all":
            assert keys == there
            assert np.array_equal(found.subclass_id, ids)
        (mine,) = [m for e in again.subclasses["classes"] for m in e["subclasses"] if m["id"] == target]
        assert mine["name"] == "looked at"
        assert str(folder) not in (run / "checkpoint" / "config.json").read_text(encoding="utf-8")
