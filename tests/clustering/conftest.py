from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

Blobs = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def blobs() -> Blobs:
    """blobs(n, d, k, separation, seed) -> rows of k unit Gaussians so far apart, and their groups."""

    def make(n: int, d: int, k: int, separation: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        centers = random.standard_normal((k, d)) * separation / np.sqrt(2 * d)
        groups = random.permutation(np.arange(n) % k)
        return (centers[groups] + random.standard_normal((n, d))).astype(np.float32), groups

    return make
