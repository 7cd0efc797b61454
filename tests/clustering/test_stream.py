"""K-means over blocks of rows, over several passes and processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from fgdemo.clustering import ArrayBlocks, classwise_kmeans, stream_kmeans
from fgdemo.errors import UserError
from tests.support.ranks import run_ranks

KS = [1, 2, 3, 5]


def blobs(classes: int = 8, rows: int = 60, dim: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes of three blobs each, of unequal size, far from the origin, in random order."""
    rng = np.random.default_rng(seed)
    sizes = rows - 3 * np.arange(classes)
    labels = np.repeat(np.arange(classes), sizes)
    centres = rng.normal(size=(classes, 3, dim)) * 3
    x = centres[labels, rng.integers(0, 3, len(labels))] + rng.normal(size=(len(labels), dim)) + 30
    order = rng.permutation(len(labels))
    return x[order].astype(np.float32), labels[order]


def squares(x: np.ndarray, found: Any) -> np.ndarray:
    """Inertia of every class and K around the returned centroids, row by row in float64."""
    result = np.zeros((len(found.chosen), len(found.ks)))
    for position, k in enumerate(found.ks):
        own = found.centroids[found.class_ids, found.block(k).start + found.labels[:, position]]
        np.add.at(result[:, position], found.class_ids, ((x.astype(np.float64) - own) ** 2).sum(1))
    return result


def test_a_sample_of_all_rows_gives_a_fixed_point_of_lloyds_algorithm() -> None:
    x, labels = blobs()
    found = stream_kmeans(ArrayBlocks(x, labels, 50), KS, select=3)
    np.testing.assert_array_equal(found.class_ids, labels)
    np.testing.assert_allclose(found.inertia, squares(x, found), rtol=1e-4)
    for position, k in enumerate(found.ks):
        for c in range(8):
            mine = labels == c
            centroids = found.centroids[c, found.block(k)]
            nearest = ((x[mine][:, None] - centroids) ** 2).sum(2).argmin(1)
            np.testing.assert_array_equal(nearest, found.labels[mine, position])
            means = [x[mine][nearest == j].mean(0) for j in range(k)]
            np.testing.assert_allclose(centroids, means, atol=1e-4)
            np.testing.assert_array_equal(found.sizes[c, found.block(k)], np.bincount(nearest, minlength=k))
    np.testing.assert_allclose(found.means, [x[labels == c].mean(0) for c in range(8)], atol=1e-4)


def test_separated_blobs_are_those_of_the_engine_in_memory() -> None:
    x, labels = blobs()
    ours, other = stream_kmeans(ArrayBlocks(x, labels, 37), [3], select=3), classwise_kmeans(x, labels, [3], select=3)
    np.testing.assert_allclose(ours.inertia, other.inertia, rtol=1e-4)


@pytest.mark.parametrize("size", [7, 64, 1000])
def test_blocks_make_no_difference(size: int) -> None:
    x, labels = blobs()
    whole = stream_kmeans([(x, labels)], KS, sample=20)
    parts = stream_kmeans(ArrayBlocks(x, labels, size), KS, sample=20)
    np.testing.assert_array_equal(parts.labels, whole.labels)
    np.testing.assert_array_equal(parts.chosen, whole.chosen)
    np.testing.assert_allclose(parts.centroids, whole.centroids, atol=1e-4)
    assert parts.iterations == whole.iterations


def test_the_order_of_rows_makes_no_difference() -> None:
    x, labels = blobs()
    order = np.random.default_rng(1).permutation(len(x))
    ours = stream_kmeans(ArrayBlocks(x, labels, 64), KS, sample=20)
    other = stream_kmeans(ArrayBlocks(x[order], labels[order], 64), KS, sample=20)
    np.testing.assert_array_equal(other.labels, ours.labels[order])


NAMES = ("labels", "centroids", "sizes", "inertia", "chosen", "means")


def _cases() -> list[dict[str, Any]]:
    start = classwise_kmeans(*blobs(), [3]).centroids.copy()
    start[:, 1] = 1000
    return [{"ks": KS}, {"ks": KS, "spherical": True}, {"ks": [3], "init": start}]


def _fits(rank: int, count: int, cases: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    x, labels = blobs()
    mine = slice(rank * len(x) // count, (rank + 1) * len(x) // count)
    blocks = ArrayBlocks(x[mine], labels[mine], 50)
    fits = [stream_kmeans(blocks, **case, sample=20, group=dist.group.WORLD) for case in cases]
    return [{name: getattr(found, name) for name in NAMES} for found in fits]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_one_two_and_four_processes_give_identical_labels(count: int, tmp_path: Path) -> None:
    cases = _cases()
    found = run_ranks(count, tmp_path, _fits, cases)
    for number, case in enumerate(cases):
        alone = stream_kmeans([blobs()], **case, sample=20)
        assert (alone.sizes > 0).all()
        np.testing.assert_array_equal(np.concatenate([part[number]["labels"] for part in found]), alone.labels)
        for part in found:
            np.testing.assert_array_equal(part[number]["sizes"], alone.sizes)
            np.testing.assert_array_equal(part[number]["chosen"], alone.chosen)
            np.testing.assert_allclose(part[number]["centroids"], alone.centroids, atol=1e-4)
            np.testing.assert_allclose(part[number]["inertia"], alone.inertia, rtol=1e-4)
            np.testing.assert_allclose(part[number]["means"], alone.means, atol=1e-4)


def _without_rows(rank: int, count: int, where: int) -> dict[str, np.ndarray] | str:
    blocks = [blobs()] if rank == where else []
    try:
        found = stream_kmeans(blocks, KS, sample=20, group=dist.group.WORLD)
    except UserError as error:
        return str(error)
    return {name: getattr(found, name) for name in NAMES}


@pytest.mark.parametrize("where", [0, 1])
def test_a_process_without_rows_takes_part(where: int, tmp_path: Path) -> None:
    found = run_ranks(2, tmp_path, _without_rows, where)
    alone = stream_kmeans([blobs()], KS, sample=20)
    np.testing.assert_array_equal(found[where]["labels"], alone.labels)
    assert found[1 - where]["labels"].shape == (0, len(KS))
    for part in found:
        np.testing.assert_array_equal(part["chosen"], alone.chosen)
        np.testing.assert_array_equal(part["sizes"], alone.sizes)
        np.testing.assert_array_equal(part["centroids"], alone.centroids)


def test_no_rows_in_any_process_is_refused_in_all(tmp_path: Path) -> None:
    assert run_ranks(2, tmp_path, _without_rows, 2) == ["There are no rows to cluster."] * 2


def test_a_memory_mapped_file(tmp_path: Path) -> None:
    x, labels = blobs()
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = stream_kmeans(ArrayBlocks(mapped, labels, 100), [1, 3])
    np.testing.assert_array_equal(found.labels, stream_kmeans([(x, labels)], [1, 3]).labels)


def test_a_class_does_not_depend_on_the_others() -> None:
    x, labels = blobs()
    together = stream_kmeans(ArrayBlocks(x, labels, 64), KS, select=1, sample=20)
    mine = labels == 0
    alone = stream_kmeans(ArrayBlocks(x[mine], labels[mine], 64), KS, select=1, sample=20)
    np.testing.assert_array_equal(alone.labels, together.labels[mine])


def test_an_empty_cluster_takes_the_farthest_row() -> None:
    # two near pairs and one far row; the third centroid starts where no row is
    x = np.array([[0.0], [1.0], [10.0], [11.0], [19.0]])
    start = np.array([[[0.5], [12.0], [500.0]]])
    found = stream_kmeans([(x, np.zeros(5, int))], [3], init=start, select=3, min_size=1, sample=5)
    assert found.sizes.tolist() == [[2, 2, 1]]
    np.testing.assert_allclose(found.centroids[0, :, 0], [0.5, 10.5, 19], atol=1e-5)
    # the sample's own clustering repairs too: this one starts empty over all rows
    far = np.concatenate([np.zeros((40, 2)), np.full((40, 2), 5.0), [[9.0, 9.0]]])
    far += np.random.default_rng(0).normal(size=far.shape) * 1e-3
    ours = stream_kmeans(ArrayBlocks(far, np.zeros(81, int), 9), [3], select=3, min_size=1, sample=4)
    assert (ours.sizes > 0).all()


def test_mini_batches_are_close_to_full_passes_and_better_than_their_start() -> None:
    x, labels = blobs(rows=200)
    full = stream_kmeans(ArrayBlocks(x, labels, 100), [4], sample=8)
    once = stream_kmeans(ArrayBlocks(x, labels, 100), [4], sample=8, max_passes=1)
    mini = stream_kmeans(ArrayBlocks(x, labels, 100), [4], sample=8, max_passes=2, mini_batch_passes=1)
    assert np.nansum(mini.inertia) < np.nansum(once.inertia)
    assert np.nansum(mini.inertia) < 1.05 * np.nansum(full.inertia)
    round_ = stream_kmeans(ArrayBlocks(x, labels, 100), [4], max_passes=2, mini_batch_passes=1, spherical=True)
    np.testing.assert_allclose(np.linalg.norm(round_.centroids, axis=2), 1, atol=1e-5)


def test_one_mini_batch_by_hand() -> None:
    # both centroids start at 0 and 10; the first block moves them to its means, the second to the means of all
    start = np.array([[[0.0], [10.0]]])
    blocks = [(np.array([[1.0], [9.0]]), [0, 0]), (np.array([[3.0], [7.0], [8.0]]), [0, 0, 0])]
    found = stream_kmeans(blocks, [2], init=start, max_passes=2, mini_batch_passes=1, select=2, min_size=1)
    np.testing.assert_allclose(found.centroids[0, :, 0], [2, 8], atol=1e-5)
    assert found.labels[:, 0].tolist() == [0, 1, 0, 1, 1]


def test_half_precision_and_torch_rows() -> None:
    x, labels = blobs()
    half = torch.from_numpy(x).half()
    ours = stream_kmeans([(half, labels)], [1, 3])
    np.testing.assert_array_equal(ours.labels, stream_kmeans([(half.float().numpy(), labels)], [1, 3]).labels)


def test_a_small_class_and_a_missing_one() -> None:
    x, labels = blobs()
    labels = np.where(labels == 2, 8, labels)
    keep = (labels != 1) | (np.cumsum(labels == 1) <= 5)
    found = stream_kmeans(ArrayBlocks(x[keep], labels[keep], 30), [2, 5])
    assert found.chosen[2] == 0
    assert np.isnan(found.means[2]).all()
    few = labels[keep] == 1
    assert (found.labels[few, 1] == -1).all()
    assert np.isnan(found.centroids[1, found.block(5)]).all()
    assert np.isnan(found.inertia[1, 1])
    assert (found.sizes[1, found.block(5)] == 0).all()
    assert (found.labels[few, 0] >= 0).all()


def test_options_change_the_result() -> None:
    x, labels = blobs(rows=150)
    blocks = ArrayBlocks(x, labels, 100)
    base = stream_kmeans(blocks, [6], sample=12)
    for options in ({"seed": 1}, {"restarts": 1}, {"max_passes": 1}, {"tol": 0.5}, {"sample": 13}, {"spherical": True}):
        other = stream_kmeans(blocks, [6], **{"sample": 12, **options})
        assert not np.array_equal(other.labels, base.labels), options


def test_progress_counts_passes_and_may_end_the_fit() -> None:
    x, labels = blobs()
    seen: list[tuple[int, int]] = []
    found = stream_kmeans([(x, labels)], KS, max_passes=9, sample=10, progress=lambda *now: seen.append(now))
    assert seen == [(i + 1, 9) for i in range(found.iterations)]

    def enough(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_kmeans([(x, labels)], KS, progress=enough)


def test_refusals() -> None:
    x, labels = blobs()
    with pytest.raises(UserError, match=r"other rows|sooner"):
        stream_kmeans(iter([(x, labels)]), [2])
    with pytest.raises(UserError, match="no rows"):
        stream_kmeans([], [2])
    with pytest.raises(UserError, match="dimensions"):
        stream_kmeans([(x, labels), (x[:, :3], labels)], [2])
    with pytest.raises(UserError, match="mini_batch_passes"):
        stream_kmeans([(x, labels)], [2], max_passes=2, mini_batch_passes=2)
    with pytest.raises(UserError, match="sample"):
        stream_kmeans([(x, labels)], [5], sample=4)
    with pytest.raises(UserError, match="in a group"):
        stream_kmeans([(x, labels)], [2], mini_batch_passes=1, group=object())
