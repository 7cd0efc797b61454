from __future__ import annotations

import pickle

import numpy as np
import pytest

from fgdemo.data.registry import load_catalogue
from fgdemo.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return load_catalogue("digits")


def test_split_is_70_15_15_stratified_and_independent_of_the_seed(digits):
    sizes = [len(digits.rows(s)) for s in ("train", "val", "test")]
    assert sizes == [1257, 270, 270]
    for split in ("val", "test"):
        per_class = np.bincount(digits.fine[digits.rows(split)])
        assert np.abs(per_class - 0.15 * np.bincount(digits.fine)).max() < 1
    assert np.array_equal(load_catalogue("digits", seed=3).split, digits.split)


@pytest.mark.parametrize(
    ("superclasses", "first"),
    [("parity", {0, 2, 4, 6, 8}), ("loops", {0, 6, 8, 9}), ("magnitude", {0, 1, 2, 3, 4})],
)
def test_superclasses(superclasses, first):
    catalogue = load_catalogue("digits", superclasses=superclasses)
    assert set(catalogue.fine[catalogue.coarse == 0].tolist()) == first
    assert catalogue.default_labels == "fine"


def test_unknown_superclasses_list_the_known_ones():
    with pytest.raises(UserError, match="parity, loops, magnitude"):
        load_catalogue("digits", superclasses="primes")


def test_pictures_are_dark_ink_on_white_paper(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    image = digits.reader(17)
    assert image.mode == "RGB"
    assert image.size == (32, 32)
    small = np.asarray(image.resize((8, 8)).convert("L"), dtype=float)
    assert np.corrcoef(small.ravel(), bunch.images[17].ravel())[0, 1] < -0.97
    assert digits.fine[17] == bunch.target[17]
    assert digits.keys[17] == "digits/0017"
    brightest = max(np.asarray(digits.reader(i)).max() for i in range(5))
    assert brightest == 255


def test_reader_pickles(digits):
    again = pickle.loads(pickle.dumps(digits.reader))
    assert again(3).tobytes() == digits.reader(3).tobytes()


def test_may_be_shipped(digits):
    assert digits.publishable
    assert digits.root is None
