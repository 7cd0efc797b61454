"""How well a memory of pictures classifies each of its own pictures by the others, and with which votes it does best.

Every picture is classified with its own vote left out. Pictures that come in bursts (the same thing a moment later)
find their near-duplicates in the memory, so figures are optimistic there, and the chosen votes are sharper than new
pictures warrant: only pictures from elsewhere, in val/ or test/, can tell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fgdemo.models.neighbour_votes import CHUNK, TEMPERATURE, K, Neighbourhood, log_votes, neighbourhood

KS = (1, 2, 5, 10, 20, 50, 100, 200)
# From what features that differ in the third digit need to no weighting at all; the mildest first, since ties go to it.
TEMPERATURES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
_ELEMENTS = 16_000_000


class LeaveOneOut(NamedTuple):
    """k, temperature: as given or chosen.

    top1, nll: of each picture by the votes of the others, in fractions and nats; 0 where n is.
    n: pictures these are over: those of classes with several pictures, where there are several classes.
    distances: (N,) float32 cosine distance of each picture to the nearest other one.
    """

    k: int
    temperature: float
    top1: float
    nll: float
    n: int
    distances: np.ndarray


def leave_one_out(
    memory: Tensor, classes: Tensor, num_classes: int, *, k: int | None = None, temperature: float | None = None
) -> LeaveOneOut:
    """The votes under which a memory predicts its own pictures best, each by the others.

    What is not given is chosen from `KS` and `TEMPERATURES` by the mean negative log-likelihood, k and temperature
    together; of equally good ones the highest temperature, then the smallest k. The only picture of a class has no
    other one that could vote for it and is passed by. Where that leaves nothing, or there is a single class, there is
    nothing to choose by: k is 20 and the temperature 0.07.

    Args:
        memory: (N, D) of any length, N at least 2, on any device. Memory is bounded: 64 MB a matrix.
        classes: (N,) int64 class ids.
    """
    memory = F.normalize(memory.float(), dim=1)
    classes = classes.to(memory.device)
    others = len(memory) - 1
    counted = torch.bincount(classes, minlength=num_classes)[classes] > 1
    if num_classes == 1:
        counted = torch.zeros_like(counted)
    known = bool(counted.any())
    ks = [k] if k is not None else [k for k in KS if k <= others] if known else [K]
    temperatures = [temperature] if temperature is not None else TEMPERATURES if known else [TEMPERATURE]
    nll = torch.zeros(len(temperatures), len(ks), dtype=torch.float64)
    hits = torch.zeros_like(nll)
    distances = []
    block = max(1, _ELEMENTS // max(min(len(memory), CHUNK), num_classes))
    for rows in torch.arange(len(memory), device=memory.device).split(block):
        near = neighbourhood(memory[rows], memory, classes, num_classes, min(max(ks), others), own=rows)
        distances.append((1 - near.similarity[:, 0]).clamp_min(0).cpu())
        mine = counted[rows]
        near, targets = Neighbourhood(*(column[mine] for column in near)), classes[rows][mine]
        for i, temperature_i in enumerate(temperatures):
            for j, k_j in enumerate(ks):
                logits = log_votes(near, k_j, temperature_i)
                nll[i, j] += F.cross_entropy(logits, targets, reduction="sum").double().cpu()
                hits[i, j] += (logits.argmax(1) == targets).sum().cpu()
    n = int(counted.sum())
    i, j = divmod(int(nll.argmin()), len(ks))
    return LeaveOneOut(
        k=ks[j],
        temperature=temperatures[i],
        top1=float(hits[i, j]) / max(n, 1),
        nll=float(nll[i, j]) / max(n, 1),
        n=n,
        distances=torch.cat(distances).numpy(),
    )
