from __future__ import annotations

import numpy as np
import torch

from train.evaluation.controls import BINS, colour_histogram


def test_colour_histogram_by_numpy() -> None:
    images = torch.rand(3, 3, 10, 12, generator=torch.Generator().manual_seed(0))
    ours = colour_histogram(images)
    for image, found in zip(images.numpy(), ours, strict=True):
        counts, _ = np.histogramdd(image.reshape(3, -1).T, bins=BINS, range=[(0, 1)] * 3)
        assert np.allclose(found.numpy(), np.sqrt(counts.reshape(-1) / 120), atol=1e-6)
    assert torch.allclose(ours.norm(dim=1), torch.ones(3))


def test_white_falls_into_the_last_bin() -> None:
    assert colour_histogram(torch.ones(1, 3, 2, 2))[0, -1] == 1
    assert colour_histogram(torch.zeros(1, 3, 2, 2))[0, 0] == 1
