"""What k-means finds in classes without structure, for criteria that compare with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fgdemo.clustering.batch import Batch, make_batch, rows_at
from fgdemo.clustering.criteria.division import Division
from fgdemo.clustering.partition import Measures, measure, partition
from fgdemo.clustering.seeding import draws

REFERENCES = 10
REFERENCE_ROWS = 512


def structureless(division: Division) -> Iterator[Measures]:
    """Measures of k-means on the stand-ins of every class."""
    for surrogate, labels in stand_ins(division):
        yield measure(surrogate, labels, division.ks)


def stratified(sizes: Tensor, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Positions (C, rows) of at most `most` rows of classes of (C,) sizes, and (C, rows) which of them are real.

    One at random from each of as many stretches of equal length: rows at equal distances would see one group alone of
    those that take turns. The same for a class whatever it is batched with.
    """
    taken = sizes.clamp(max=most)
    jitter = torch.from_numpy(np.random.default_rng([seed, 6]).random(most))[: int(taken.max())].to(sizes.device)
    rows = torch.arange(len(jitter), device=sizes.device)
    index = ((rows + jitter) * sizes[:, None] / taken[:, None].clamp(min=1)).long()
    # places behind the last row are padding
    return torch.minimum(index, (sizes[:, None] - 1).clamp(min=0)), rows < taken[:, None]


def stand_ins(division: Division) -> Iterator[tuple[Batch, Tensor]]:
    """`REFERENCES` structureless stand-ins of every class: their batch, and labels (C, M, n) by k-means.

    Each is drawn from one Gaussian with the covariance of the class shrunk towards a sphere by
    OAS (Chen, Wiesel, Eldar and Hero, 2010, equation 23), since with few rows the sample covariance is far more uneven
    than the true one. Classes above REFERENCE_ROWS rows are stood in for by as many of them, drawn by `stratified`;
    fewer rows give larger silhouettes and smaller inertia, which errs towards K = 1.
    """
    flat, ks = division.flat, division.ks
    classes, _, dim = flat.x.shape
    index, mask = stratified(flat.sizes, REFERENCE_ROWS, division.seed)
    sizes, rows = mask.sum(1), mask.shape[1]
    base = rows_at(flat.x, index)
    base = torch.where(mask[..., None], base, 0)
    base = torch.where(mask[..., None], base - base.sum(1, keepdim=True) / sizes[:, None, None], 0)
    variance, shrinkage = _shrinkage(base, sizes)
    spread = ((1 - shrinkage) / (sizes - 1).clamp(min=1)).sqrt()[:, None, None]
    noise = (shrinkage * variance).sqrt()[:, None, None]

    random = np.random.default_rng([division.seed, 1])
    for reference in range(REFERENCES):
        mixing = torch.from_numpy(random.standard_normal((REFERENCE_ROWS, REFERENCE_ROWS), np.float32))[:rows, :rows]
        sphere = torch.from_numpy(random.standard_normal((REFERENCE_ROWS, dim), np.float32))[:rows]
        drawn = spread * (mixing.to(base.device) @ base) + noise * sphere.to(base.device)
        surrogate = make_batch(drawn, sizes)
        uniform = torch.from_numpy(draws(division.seed + 1 + reference, 1, max(ks), 1)).to(base.device)
        labels, _ = partition(surrogate, ks, division.admissible, uniform.expand(classes, -1, -1, -1), principal=True)
        yield surrogate, labels


def _shrinkage(base: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean variance (C,) of a dimension, and the share (C,) of the sphere in the shrunk covariance."""
    dim = base.shape[2]
    n = sizes.clamp(min=2).double()
    small = base.transpose(1, 2) if base.shape[1] > dim else base
    gram = torch.bmm(small, small.transpose(1, 2)).double() / (n - 1)[:, None, None]
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    squared = gram.square().sum((1, 2))
    numerator = (1 - 2 / dim) * squared + trace.square()
    denominator = (n + 1 - 2 / dim) * (squared - trace.square() / dim)
    share = torch.where(denominator > 0, numerator / denominator.clamp(min=1e-300), 1).clamp(0, 1)
    return (trace / dim).float(), share.float()
