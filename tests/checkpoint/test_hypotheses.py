"""Subclasses under several K in a checkpoint: kept bit by bit, and every contradiction refused in one sentence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fgdemo.checkpoint import read_checkpoint
from fgdemo.checkpoint.schema import first_column
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery

from .conftest import Damage, gallery, subclasses, write

SUBCLASSES, GALLERY = "subclasses.json", "gallery.safetensors"
KS = [2, 3]


def document() -> dict[str, Any]:
    """Class 0 has chosen K = 2, class 1 admits no K, class 2 has no subclasses and hypotheses all the same."""
    found = copy.deepcopy(subclasses())
    found["ks"] = KS
    for entry, columns in zip(found["classes"], ((1, 0), (0,)), strict=True):
        for member, column in zip(entry["subclasses"], columns, strict=True):
            member["column"] = column
    return found


def divided() -> Gallery:
    """Rows of class 0 in turn in clusters 1 (subclass 7) and 0 (subclass 4) of two."""
    plain = gallery()
    row = np.arange(20)
    of_two = np.choose(plain.class_id, [1 - row % 4 % 2, -1, 0])
    of_three = np.choose(plain.class_id, [row % 3, -1, row % 3])
    return plain.with_subclasses(
        plain.subclass_id, document(), plain.centroids, hypotheses=np.stack([of_two, of_three], 1)
    )


@pytest.fixture
def damage(tmp_path: Path) -> Damage:
    whole = divided()
    return Damage(write(tmp_path / "damaged", gallery=whole.to_tensors(), subclasses=whole.subclasses))


def test_they_come_back_as_they_were_and_stay_under_other_names(damage: Damage):
    found = Gallery.from_checkpoint(read_checkpoint(damage.directory))
    assert found.hypotheses.dtype == np.int16
    np.testing.assert_array_equal(found.hypotheses, divided().hypotheses)
    assert found.subclasses["ks"] == KS
    renamed = copy.deepcopy(found.subclasses)
    renamed["classes"][0]["subclasses"][0]["name"] = "spotted"
    again = found.with_subclasses(found.subclass_id, renamed, found.centroids)
    np.testing.assert_array_equal(again.hypotheses, found.hypotheses)
    without = found.with_subclasses(found.subclass_id, subclasses(), found.centroids)
    assert without.hypotheses is None
    assert "hypotheses" not in without.to_tensors()


def test_columns_run_over_k_and_then_over_clusters():
    assert [first_column([1, 2, 4], k) for k in (1, 2, 3, 4)] == [0, 1, None, 3]
    assert [first_column([2, 3], k) for k in (1, 2, 3)] == [0, 0, 2]
    assert first_column([], 1) is None


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("ks",), [], 'field "ks": ascending numbers'),
        (("ks",), [3, 2], 'field "ks": ascending numbers'),
        (("ks",), [2, 2], 'field "ks": ascending numbers'),
        (("ks",), [0, 2], 'field "ks": ascending numbers'),
        (("ks",), [True, 2], 'field "ks": ascending numbers'),
        (("ks",), [2, 40000], 'field "ks": ascending numbers'),
        (("ks",), "2", 'field "ks": ascending numbers'),
        (("ks",), [2, 3, 4], 'field "hypotheses": its shape is .20, 2., not 20 x 3'),
        (("ks",), [3, 4], "the columns of its 2 subclasses"),
        (("classes", 0, "subclasses", 0, "column"), 0, "the columns of its 2 subclasses"),
        (("classes", 0, "subclasses", 0, "column"), 2, "the columns of its 2 subclasses"),
        (("classes", 0, "subclasses", 0, "column"), 1.0, "the columns of its 2 subclasses"),
        (("classes", 0, "subclasses", 0, "column"), None, "the columns of its 2 subclasses"),
        (("classes", 1, "subclasses", 0, "column"), 1, "the columns of its 1 subclasses"),
        (("classes", 0, "scores"), {"two": 0.5}, r'classes\[0\].scores.two": a number of subclasses'),
        (("classes", 0, "scores"), {"2": "high"}, r'classes\[0\].scores.2": a number'),
    ],
)
def test_bad_documents(damage: Damage, path: tuple[Any, ...], value: Any, expected: str):
    damage.json(SUBCLASSES, *path, value=value)
    refused(damage, expected)


def test_columns_need_numbers_and_numbers_need_their_table(damage: Damage):
    damage.json(SUBCLASSES, "classes", 0, "subclasses", 1, "column", remove=True)
    refused(damage, "the columns of its 2 subclasses")
    damage.json(SUBCLASSES, "classes", 0, "subclasses", 1, "column", value=0)
    damage.json(SUBCLASSES, "ks", remove=True)
    refused(damage, "the columns of its 2 subclasses")
    damage.json(SUBCLASSES, "classes", value=subclasses()["classes"])
    refused(damage, 'field "hypotheses": this tensor does not belong in a gallery whose subclasses.json has no "ks"')
    damage.tensors(GALLERY, hypotheses=None)
    read_checkpoint(damage.directory)
    damage.json(SUBCLASSES, "ks", value=KS)
    refused(damage, 'field "hypotheses": this tensor is missing')


def changed(index: Any, value: int) -> Any:
    def change(table: torch.Tensor) -> torch.Tensor:
        table = table.clone()
        table[index] = value
        return table

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda table: table.int(), "its type is torch.int32, not torch.int16"),
        (lambda table: table[:, :1].clone(), "its shape is .20, 1., not 20 x 2"),
        (lambda table: table[1:].clone(), "its shape is .19, 2., not 20 x 2"),
        (lambda table: table[:, 0].clone(), "its shape is"),
        (changed((3, 0), 2), "row 3 is 2 under K = 2, outside -1 to 1"),
        (changed((3, 1), -2), "row 3 is -2 under K = 3, outside -1 to 2"),
        (changed((3, 1), -1), "only some pictures of class 2 have a cluster under K = 3"),
        (changed((4, 0), 0), "row 4 is in another cluster than the column of its subclass says"),
        (changed(([0, 1, 4, 5, 8, 9, 12, 13], 0), -1), "row 0 is in another cluster than"),
    ],
)
def test_bad_tables(damage: Damage, change: Any, expected: str):
    damage.tensors(GALLERY, hypotheses=change(load_file(damage.directory / GALLERY)["hypotheses"]))
    refused(damage, expected)


def test_rows_of_other_splits_need_no_cluster(damage: Damage):
    table = load_file(damage.directory / GALLERY)["hypotheses"]
    table[15:] = -1
    damage.tensors(GALLERY, hypotheses=table)
    read_checkpoint(damage.directory)


def refused(damage: Damage, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        read_checkpoint(damage.directory)
    assert str(caught.value).endswith("; export the checkpoint again.")
