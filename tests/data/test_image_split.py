from __future__ import annotations

import logging
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fgdemo.data.image_split import ImageSplit
from fgdemo.data.registry import load_catalogue
from fgdemo.data.samplers import EpochSampler
from fgdemo.data.transforms import Preprocessing, train_transform
from fgdemo.errors import UserError

PRE = Preprocessing(input_size=(3, 24, 24))


def augment():
    return train_transform(PRE, auto_augment="rand-m9-mstd0.5", re_prob=0.5)


@pytest.fixture(scope="module")
def digits():
    return load_catalogue("digits")


@pytest.fixture
def folder(tmp_path, write_picture):
    """Two classes of four pictures each, as a training split."""
    for name in "ab":
        for i in range(4):
            write_picture(tmp_path / "train" / name / f"{name}{i}.png")
    return tmp_path


def split_of(root, **options) -> ImageSplit:
    return ImageSplit(load_catalogue("imagefolder", root, val_fraction=0.0), "train", **options)


def test_sample_without_a_transform(digits):
    split = ImageSplit(digits, "test", labels="coarse")
    assert len(split) == 270
    sample = split[11]
    assert sample.index == split.rows[11] == digits.rows("test")[11]
    assert sample.label == digits.coarse[sample.index] == split.targets[11]
    assert sample.image.tobytes() == digits.reader(sample.index).tobytes()
    assert split.class_names == ("even", "odd")


def test_default_labels_are_the_catalogues(digits):
    assert ImageSplit(digits, "val").labels == "fine"


@pytest.mark.parametrize("row", [-1, 270])
def test_rows_outside(digits, row):
    with pytest.raises(IndexError):
        ImageSplit(digits, "test")[row]


def test_unknown_split_and_level(digits):
    with pytest.raises(UserError, match="'dev'"):
        ImageSplit(digits, "dev")
    with pytest.raises(UserError, match="'medium'"):
        ImageSplit(digits, "train", labels="medium")


def test_draws_depend_on_seed_epoch_and_index_alone(digits):
    split = ImageSplit(digits, "train", transform=augment(), augment_seed=5)
    first = split[(7, 3)].image
    split[(8, 3)], split[(7, 4)]
    torch.rand(3), random.random(), np.random.rand()
    assert torch.equal(split[(7, 3)].image, first)
    assert torch.equal(split[7].image, split[(7, 0)].image)
    assert not torch.equal(split[(7, 4)].image, first)
    assert not torch.equal(ImageSplit(digits, "train", transform=augment())[(7, 3)].image, first)
    again = ImageSplit(digits, "train", transform=augment(), augment_seed=5)
    assert torch.equal(again[(np.int64(7), 3)].image, first)


def test_global_random_states_are_left_alone(digits):
    split = ImageSplit(digits, "train", transform=augment())
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    expected = random.random(), np.random.rand(), torch.rand(())
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    split[(0, 1)]
    assert (random.random(), np.random.rand(), torch.rand(())) == expected


def test_workers_give_the_same_bits(digits):
    split = ImageSplit(digits, "val", transform=augment(), cache=True)
    batches = list(EpochSampler(len(split), 90, seed=0).epoch(2))
    alone = list(DataLoader(split, batch_sampler=batches))
    shared = list(DataLoader(split, batch_sampler=batches, num_workers=2))
    assert len(alone) == len(shared) == 3
    for a, b in zip(alone, shared, strict=True):
        assert a.image.shape == (90, 3, 24, 24)
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)
        assert torch.equal(a.index, b.index)
        assert list(a.key) == list(b.key)
        assert np.array_equal(digits.fine[a.index], a.label)


def test_copy_for_a_spawned_worker_gives_the_same_bits_and_starts_without_cache(digits):
    split = ImageSplit(digits, "val", transform=augment(), cache=True)
    small = len(pickle.dumps(split))
    split.preload()
    data = pickle.dumps(split)
    assert len(data) == small
    assert torch.equal(pickle.loads(data)[(3, 1)].image, split[(3, 1)].image)


def test_cache_reads_each_file_once(folder):
    plain, cached = split_of(folder), split_of(folder, cache=True)
    before = [plain[i].image.tobytes() for i in range(8)]
    assert [cached[i].image.tobytes() for i in range(8)] == before
    for path in (folder / "train").rglob("*.png"):
        path.unlink()
    assert [cached[i].image.tobytes() for i in range(8)] == before
    cached[0].image.putpixel((0, 0), (1, 2, 3))
    assert cached[0].image.tobytes() == before[0]


def test_preload_fills_the_cache(folder):
    cached = split_of(folder, cache=True)
    cached.preload(threads=2)
    plain = split_of(folder, cache=False)
    for path in (folder / "train").rglob("*.png"):
        path.unlink()
    assert len({cached[i].image.tobytes() for i in range(8)}) == 8
    with pytest.raises(ValueError, match="cache"):
        plain.preload()


@pytest.mark.parametrize("cache", [False, True])
def test_corrupt_picture_is_reported_once_and_replaced_by_its_class(folder, caplog, cache):
    for name in ("a1", "a2"):
        (folder / "train" / "a" / f"{name}.png").write_bytes(b"broken")
    split = split_of(folder, cache=cache)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            sample = split[1]
    assert sample.key == "train/a/a3.png"
    assert sample.index == 3
    assert sample.label == 0
    assert sample.image.tobytes() == split[3].image.tobytes()
    assert len([r for r in caplog.records if "a1.png" in r.getMessage()]) == 1
    assert len([r for r in caplog.records if "a2.png" in r.getMessage()]) == 1


def test_replacement_wraps_around_and_draws_as_its_own_sample(folder):
    (folder / "train" / "a" / "a3.png").unlink()
    catalogue_before = load_catalogue("imagefolder", folder, val_fraction=0.0)
    assert len(catalogue_before) == 7
    (folder / "train" / "a" / "a2.png").write_bytes(b"")
    split = split_of(folder, transform=augment())
    assert split[2].key == "train/a/a0.png"
    assert not torch.equal(split[2].image, split[0].image)
    assert torch.equal(split[2].image, split[2].image)


@pytest.mark.parametrize("cache", [False, True])
def test_strict_names_the_file(folder, cache):
    (folder / "train" / "b" / "b2.png").write_bytes(b"broken")
    split = split_of(folder, strict=True, cache=cache)
    with pytest.raises(UserError, match=r"b2\.png"):
        split[6]
    if cache:
        with pytest.raises(UserError, match=r"b2\.png"):
            split.preload()


def test_class_without_a_readable_picture(folder):
    for path in (folder / "train" / "b").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="No picture of class 'b'"):
        split_of(folder)[5]
