"""Gap statistic in the leading principal components, against Gaussians with the same covariance there.

In many dimensions the noise within clusters swamps every distance, and nothing that is measured on all of them tells K
from 1. K separate clusters differ in K - 1 directions, which are the leading components as soon as their variance
stands out of the noise's (Baik, Ben Arous and Péché, 2005: from sqrt(D / n) times it). So K is judged in K - 1
components: W is the inertia of k-means there, and the references are Gaussian rows with exactly the class's variances
along them, so that a long class is not taken for several. The score is the deviation

    (mean of the references' log W - log W of the class) / standard deviation of the references' log W,

0 for K = 1; ten references leave an error of a quarter in each deviation, so it is smoothed over K. The K with the
largest is taken, or K = 1 if none exceeds the one-sided Gaussian quantile of `LEVEL` divided by the number of K > 1
that may be chosen. Rows farther from the mean than the median distance by `FAR` median absolute deviations (scaled to a
Gaussian's standard deviation) are drawn in to that distance first: an outlier would be a component by itself.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from fgdemo.clustering.batch import BLOCK_VALUES, CACHED_VALUES, Batch, make_batch, rows_at
from fgdemo.clustering.criteria.division import Criterion, Division, best_or_one
from fgdemo.clustering.criteria.reference import stratified
from fgdemo.clustering.principal import cluster, principal_coordinates
from fgdemo.clustering.seeding import draws

REFERENCES = 10
ROWS = 2048
"""Larger classes are judged by as many of their rows, drawn by `stratified`."""
RESTARTS = 2
LEVEL = 0.005
FAR = 3.0
GAUSSIAN = 1.4826


def score(division: Division) -> dict[str, Tensor]:
    """The deviation of every class under every K."""
    ks = division.ks
    gap = torch.zeros(division.labels.shape[:2], dtype=torch.float64, device=division.batch.x.device)
    if max(ks) == 1:
        return {"principal-gap": gap}
    deviation = torch.ones_like(gap)
    batch = drawn_in(division.flat, division.seed)
    coordinates = principal_coordinates(batch, max(ks) - 1)
    stand_ins = gaussian_stand_ins(coordinates, batch, division.seed)
    uniform = torch.from_numpy(draws(division.seed + 1, 1, max(ks), RESTARTS)).to(coordinates.device)
    for position, k in enumerate(ks):
        if k == 1:
            continue
        admissible = division.admissible[:, position]
        own = _log_inertia(coordinates[:, None], batch.sizes, k, admissible, uniform)
        limit = CACHED_VALUES if coordinates.device.type == "cpu" else BLOCK_VALUES
        step = max(1, limit // (coordinates[:, :, 0].numel() * RESTARTS * k))
        parts = [_log_inertia(part, batch.sizes, k, admissible, uniform) for part in stand_ins.split(step, 1)]
        reference = torch.cat(parts, 1)
        gap[:, position] = reference.mean(1) - own[:, 0]
        deviation[:, position] = reference.std(1)
    return {"principal-gap": gap / smooth(deviation, ks, division.admissible)}


def smooth(deviation: Tensor, ks: tuple[int, ...], admissible: Tensor) -> Tensor:
    """(C, M) deviations on each class's power law in K - 1, fitted to the admissible K > 1; 1 for K = 1."""
    length = torch.tensor([max(k - 1, 1) for k in ks], dtype=deviation.dtype, device=deviation.device).log()
    known = (admissible & torch.tensor([k > 1 for k in ks], device=deviation.device)).to(deviation)
    count = known.sum(1, keepdim=True).clamp(min=1)
    height = deviation.clamp(min=1e-6).log()
    middle = (known * height).sum(1, keepdim=True) / count
    along = length - (known * length).sum(1, keepdim=True) / count
    spread = (known * along.square()).sum(1, keepdim=True)
    slope = (known * along * (height - middle)).sum(1, keepdim=True) / spread.clamp(min=1e-12)
    return torch.where(known > 0, (middle + slope * along).exp(), 1)


def drawn_in(batch: Batch, seed: int) -> Batch:
    """At most `ROWS` rows of every class, the far ones drawn in."""
    index, real = stratified(batch.sizes, ROWS, seed)
    radii = torch.where(real, batch.square.gather(1, index).sqrt(), torch.nan)
    middle = radii.nanmedian(1, keepdim=True).values
    deviation = GAUSSIAN * (radii - middle).abs().nanmedian(1, keepdim=True).values
    scale = ((middle + FAR * deviation) / radii.clamp(min=1e-30)).clamp(max=1)
    return make_batch(rows_at(batch.x, index) * scale[..., None], real.sum(1))


def gaussian_stand_ins(coordinates: Tensor, batch: Batch, seed: int) -> Tensor:
    """(C, REFERENCES, n, r) Gaussian rows with the mean 0 and exactly the covariance of (C, n, r) coordinates."""
    _, n, components = coordinates.shape
    random = np.random.default_rng([seed, 6])
    drawn = torch.from_numpy(random.standard_normal((REFERENCES, ROWS, components), np.float32))[:, :n]
    mask = batch.mask[:, None, :, None]
    drawn = torch.where(mask, drawn.to(coordinates.device), 0)
    drawn = torch.where(mask, drawn - drawn.sum(2, keepdim=True) / batch.sizes[:, None, None, None], 0)
    frame = torch.where(mask, torch.linalg.qr(drawn)[0], 0)
    return frame * torch.linalg.vector_norm(coordinates, dim=1)[:, None, None]


def _log_inertia(coordinates: Tensor, sizes: Tensor, k: int, admissible: Tensor, uniform: Tensor) -> Tensor:
    """(C, R) log W under k of (C, R, n, r) coordinates."""
    repeats = coordinates.shape[1]
    batch = make_batch(coordinates[..., : k - 1].flatten(0, 1), sizes.repeat_interleave(repeats))
    uniform = uniform[:, :k].expand(len(batch.x), -1, -1, -1)
    _, inertia = cluster(batch, k, admissible.repeat_interleave(repeats), uniform)
    return inertia.double().clamp(min=1e-30).log().view(-1, repeats)


def choose_by_deviation(ks: tuple[int, ...], scores: np.ndarray) -> np.ndarray:
    """(C,) position in `ks` of the chosen K, from (C, M) scores with NaN where inadmissible; -1 if all are."""
    known = (np.array(ks) > 1) & ~np.isnan(scores)
    merit = np.where(known, scores, -np.inf)
    convincing = norm.isf(LEVEL / np.maximum(known.sum(1), 1))
    return np.where(np.isnan(scores).all(1), -1, best_or_one(ks, merit, merit.max(1) > convincing))


PRINCIPAL_GAP = Criterion(score, lambda ks, scores: choose_by_deviation(ks, scores["principal-gap"]))
