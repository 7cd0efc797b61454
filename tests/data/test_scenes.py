from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fgdemo.data.registry import load_catalogue
from fgdemo.data.scenes import SPECIES, render
from fgdemo.data.scenes import cache as scenes_cache
from fgdemo.data.scenes.cache import CHUNK, ArrayCache, user_cache_directory
from fgdemo.data.scenes.draws import Draws
from fgdemo.data.scenes.painter import SIZE, blur
from fgdemo.data.scenes.plan import PER_CLASS, plan, quotas

NAMES = [s.name for s in SPECIES]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def catalogue(root):
    return load_catalogue("scenes", root)


def spread(catalogue, per_class):
    """The first rows of every class, all splits."""
    return np.concatenate([np.flatnonzero(catalogue.coarse == c)[:per_class] for c in range(len(SPECIES))])


# ---- the plan


def test_at_least_twelve_classes_with_one_to_five_subclasses_in_different_numbers():
    counts = [len(s.subclasses) for s in SPECIES]
    assert len(SPECIES) >= 12
    assert set(counts) == {1, 2, 3, 4, 5}
    for species in SPECIES:
        shares = [share for _, share in species.subclasses]
        assert sum(shares) == pytest.approx(1)
        assert len(shares) == 1 or (min(shares) >= 0.15 and max(shares) <= 0.6)


def test_quotas_add_up_and_give_the_largest_remainders_the_rest():
    assert quotas(10, (0.45, 0.35, 0.2)).tolist() == [5, 3, 2]
    assert quotas(7, (0.5, 0.3, 0.2)).tolist() == [4, 2, 1]
    assert quotas(200, (0.25, 0.22, 0.2, 0.17, 0.16)).sum() == 200


def test_splits_are_balanced_over_classes_and_keep_the_shares_of_subclasses(catalogue):
    for split, per_class in PER_CLASS.items():
        rows = catalogue.rows(split)
        assert np.bincount(catalogue.coarse[rows]).tolist() == [per_class] * len(SPECIES)
        fine = np.bincount(catalogue.fine[rows], minlength=len(catalogue.hierarchy.fine_names))
        expected = np.concatenate([quotas(per_class, [w for _, w in s.subclasses]) for s in SPECIES])
        assert fine.tolist() == expected.tolist()


def test_hierarchy_and_keys(catalogue):
    assert list(catalogue.hierarchy.coarse_names) == NAMES
    assert catalogue.class_names(catalogue.default_labels) == tuple(NAMES)
    for name, parent in zip(catalogue.hierarchy.fine_names, catalogue.superclass_names("fine"), strict=True):
        assert name.split(" / ")[0] == parent
    assert len(set(catalogue.keys.tolist())) == len(catalogue) == len(SPECIES) * sum(PER_CLASS.values())
    first = np.searchsorted(catalogue.hierarchy.fine_to_coarse, catalogue.coarse)
    assert np.array_equal(catalogue.fine - first, catalogue.truth["subclass"])


def test_rows_of_a_split_are_shuffled_and_other_seeds_shuffle_otherwise():
    one, other = plan(0), plan(1)
    assert not np.array_equal(one.class_id, other.class_id)
    assert (np.diff(one.class_id[:200]) != 0).mean() > 0.5


def test_the_seed_of_a_run_changes_nothing(root, catalogue):
    other = load_catalogue("scenes", root, seed=7)
    assert np.array_equal(other.fine, catalogue.fine)
    assert other.reader(5).tobytes() == catalogue.reader(5).tobytes()


# ---- the pictures


def test_same_keys_give_the_same_bytes_in_another_process():
    code = (
        "import hashlib; from fgdemo.data.scenes import render\n"
        "h = hashlib.sha256()\n"
        "for s in (render(0, i, i, 0) for i in range(12)):\n"
        "    h.update(s.image.tobytes() + s.mask.tobytes() + s.part_box.tobytes())\n"
        "print(h.hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    here = hashlib.sha256()
    for s in (render(0, i, i, 0) for i in range(12)):
        here.update(s.image.tobytes() + s.mask.tobytes() + s.part_box.tobytes())
    assert there.stdout.strip() == here.hexdigest()


def test_other_seed_or_index_gives_another_picture():
    reference = render(0, 5, 3, 0).image
    assert not np.array_equal(render(1, 5, 3, 0).image, reference)
    assert not np.array_equal(render(0, 6, 3, 0).image, reference)


def test_mask_and_part_box_lie_in_the_picture_and_on_each_other(catalogue):
    boxes = catalogue.truth["part_box"]
    assert boxes.dtype == np.float32
    assert boxes.min() >= 0
    assert boxes.max() <= SIZE
    assert (boxes[:, 2:] - boxes[:, :2]).min() > 4
    near = []
    for i in spread(catalogue, 4):
        mask = catalogue.reader.mask(i)
        assert mask.shape == (SIZE, SIZE)
        assert mask.dtype == bool
        assert 0.02 < mask.mean() < 0.6
        down, across = np.nonzero(mask)
        x0, y0, x1, y1 = boxes[i]
        inside = (x0 >= across.min() - 3, x1 <= across.max() + 4, y0 >= down.min() - 3, y1 <= down.max() + 4)
        near.append(all(inside) and mask[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1].mean() > 0.1)
    assert np.mean(near) > 0.9


@pytest.mark.parametrize("class_id", [c for c, s in enumerate(SPECIES) if len(s.subclasses) > 1], ids=str)
def test_subclasses_differ_near_the_part_and_nowhere_else(class_id):
    kinds = len(SPECIES[class_id].subclasses)
    for index in range(3):
        scenes = [render(0, index, class_id, s) for s in range(kinds)]
        for a in range(kinds):
            for b in range(a):
                box = np.stack([scenes[a].part_box, scenes[b].part_box])
                x0, y0 = np.floor(box[:, :2].min(axis=0)).astype(int) - 9
                x1, y1 = np.ceil(box[:, 2:].max(axis=0)).astype(int) + 9
                change = np.abs(scenes[a].image.astype(int) - scenes[b].image.astype(int)).max(axis=2)
                assert (change > 24).sum() >= 12
                change[max(0, y0) : y1, max(0, x0) : x1] = 0
                assert change.max() <= 2  # the faint end of a shadow


def test_classes_are_not_told_by_a_linear_probe_on_pixels():
    kinds = [len(s.subclasses) for s in SPECIES]
    n = 300
    pictures = [render(7, i, i % 12, (i // 12) % kinds[i % 12]).image for i in range(n)]
    small = np.stack(pictures).reshape(n, 16, 8, 16, 8, 3).mean(axis=(2, 4)).reshape(n, -1) / 255
    labels = np.arange(n) % 12
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, max_iter=200))
    probe.fit(small[:228], labels[:228])
    assert probe.score(small[228:], labels[228:]) < 0.5


# ---- draws and blur


def test_draws_depend_on_their_key_alone_and_fill_their_range():
    d = Draws(0, 1, "a")
    values = np.array([d.unit() for _ in range(2000)])
    e = Draws(0, 1, "a")
    assert values.tolist() == [e.unit() for _ in range(2000)]
    assert Draws(0, 1, "b").unit() != values[0]
    assert abs(values.mean() - 0.5) < 0.03
    assert values.min() >= 0
    assert values.max() < 1
    assert {d.integer(2, 4) for _ in range(100)} == {2, 3, 4}


def test_blur_keeps_the_mass_and_spreads_a_point_as_a_triangle():
    mask = np.zeros((21, 21), dtype=np.uint8)
    mask[10, 10] = 255
    soft = blur(mask, 2)
    assert soft.sum() == pytest.approx(1, rel=1e-6)
    triangle = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25
    np.testing.assert_allclose(soft[6:15, 6:15], np.outer(triangle, triangle), rtol=1e-6)


# ---- the cache


def test_cached_pictures_equal_drawn_ones_also_after_pickling(catalogue):
    rows = [0, CHUNK - 1, len(catalogue) - 1]
    reader = pickle.loads(pickle.dumps(catalogue.reader))
    for i in rows:
        drawn = catalogue.reader.scene(i).image
        for read in (catalogue.reader(i), catalogue.reader(i), reader(i)):
            assert read.mode == "RGB"
            assert np.array_equal(np.asarray(read), drawn)
    assert len(list(catalogue.reader.directory.glob("pictures-*.npy"))) == 2


def test_a_damaged_or_foreign_cache_file_is_drawn_anew(catalogue):
    catalogue.reader(0)
    path = catalogue.reader.directory / "pictures-000.npy"
    whole = path.read_bytes()
    for damage in (whole[:5000], b"not an array"):
        path.write_bytes(damage)
        fresh = load_catalogue("scenes", catalogue.root).reader
        assert np.array_equal(np.asarray(fresh(3)), catalogue.reader.scene(3).image)
        assert path.read_bytes() == whole


def test_cache_never_unpickles(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"x": 1}, None], dtype=object), allow_pickle=True)
    got = ArrayCache(tmp_path).get("a", (2,), np.float32, lambda: np.ones(2, np.float32))
    assert got.tolist() == [1, 1]
    assert np.load(tmp_path / "a.npy", allow_pickle=False).tolist() == [1, 1]


def test_a_folder_that_cannot_be_written_means_drawing_on_the_fly(tmp_path, catalogue, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    other = load_catalogue("scenes", blocked)
    assert np.array_equal(other.truth["part_box"], catalogue.truth["part_box"])
    assert np.array_equal(np.asarray(other.reader(1)), catalogue.reader.scene(1).image)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert str(blocked) in caplog.text


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scenes_cache.os, "fsync", full)
    cache = ArrayCache(tmp_path)
    assert cache.get("a", (2,), np.float32, lambda: np.ones(2, np.float32)).tolist() == [1, 1]
    assert not cache.writable
    assert list(tmp_path.iterdir()) == []


def test_default_folder_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_directory() == tmp_path / "fgdemo"


def test_an_index_outside_is_an_index_error(catalogue):
    with pytest.raises(IndexError, match="3840"):
        catalogue.reader(3840)
    with pytest.raises(IndexError):
        catalogue.reader(-1)
