"""Retrieval: does a picture find others of its class among all pictures of the split?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fgdemo.errors import UserError
from train.evaluation.outcomes import pack_bits
from train.evaluation.ruler import Ruler
from train.evaluation.subject import Subject

# Values of one (queries, pictures) block. The ranking holds at most about 100 bytes for each: 100 MB.
_BLOCK = 1_000_000


@dataclass
class RetrievalOptions:
    """Retrieval"""

    retrieval: bool = False
    """let every picture of the split search all others for its class: recall@k and mean average precision"""
    recall_at: int | tuple[int, ...] = (1, 2, 4, 8)
    """how many of the most similar pictures count for recall@k; several numbers one after the other"""

    def __post_init__(self) -> None:
        self.recall_at = (self.recall_at,) if isinstance(self.recall_at, int) else tuple(self.recall_at)
        if not self.recall_at or min(self.recall_at) < 1:
            raise UserError(f"--recall-at needs numbers of at least 1, not {list(self.recall_at)}.")


class Ranked(NamedTuple):
    """What N queries found, under L labellings.

    hits: (L, N, K) bool, whether one of the k most similar pictures is relevant, for each of K values of k.
    precision: (L, N) float64, average precision; 0 where nothing is relevant.
    relevant: (L, N) int64, how many other pictures have the query's label.
    """

    hits: Tensor
    precision: Tensor
    relevant: Tensor


def measure(subject: Subject, options: RetrievalOptions) -> dict[str, Any]:
    """recall@k and mAP at both levels of the hierarchy, or at the one of a flat data set.

    A query without another picture of its class in the split is left out and counted.
    """
    output, catalogue = subject.outputs(subject.split), subject.catalogue
    levels = ("fine",) if catalogue.hierarchy.is_flat else ("fine", "coarse")
    labels = np.stack([catalogue.targets(level)[output.index.numpy()] for level in levels])
    ranked = rank(output.embeddings, torch.from_numpy(labels), options.recall_at)
    result: dict[str, Any] = {"outcomes": {}}
    for level, hits, precision, relevant in zip(levels, *ranked, strict=True):
        kept = relevant > 0
        recalls = dict(zip(options.recall_at, hits[kept].T, strict=True))
        result[level] = {
            **{f"recall@{k}": _mean(found) for k, found in recalls.items()},
            "mAP": _mean(precision[kept]),
            "n": int(kept.sum()),
            "left_out": int((~kept).sum()),
        }
        if 1 in recalls:
            result["outcomes"][f"retrieval/{level}/recall@1"] = pack_bits(recalls[1].numpy())
    return result


def rank(embeddings: Tensor, labels: Tensor, ks: tuple[int, ...]) -> Ranked:
    """Every row of (N, D) embeddings searches all others by cosine similarity; one ranking serves (L, N) labels.

    Equally similar pictures come in their own order for the hits. For average precision they come at once, each with
    the precision of all of them, which is scikit-learn's `average_precision_score`.
    """
    unit = F.normalize(embeddings.float(), dim=1)
    n = len(unit)
    block = max(1, _BLOCK // n)
    parts = [_rank_block(unit, labels, ks, start, min(start + block, n)) for start in range(0, n, block)]
    return Ranked(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))


def lines(result: dict[str, Any]) -> list[str]:
    """The table for people."""
    rows = []
    for level, figures in result.items():
        left_out = f", {figures['left_out']} without another picture of their class" if figures["left_out"] else ""
        names = [name for name in figures if name.startswith("recall@") or name == "mAP"]
        values = [f"{name} {100 * figures[name]:.2f} %" for name in names if figures[name] is not None]
        rows.append(f"  retrieval    {level}: {', '.join([*values, str(figures['n'])])} queries{left_out}")
    return rows


def _rank_block(unit: Tensor, labels: Tensor, ks: tuple[int, ...], start: int, stop: int) -> Ranked:
    """Queries `start` to `stop`."""
    similarity = unit[start:stop] @ unit.T
    similarity[torch.arange(stop - start), torch.arange(start, stop)] = -torch.inf
    values, order = similarity.sort(dim=1, descending=True, stable=True)
    # The query itself is last.
    values, order = values[:, :-1], order[:, :-1]
    place = torch.arange(1, len(unit))
    differs = values[:, 1:] != values[:, :-1]
    # Where the run of equal values ends that each place belongs to: the next place that differs from its successor.
    ends = torch.where(F.pad(differs, (0, 1), value=True), place, len(unit)).flip(1).cummin(1).values.flip(1)
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    for label in labels:
        right = label[order] == label[start:stop, None]
        found = right.cumsum(1)
        precision = found.gather(1, ends - 1) / ends.double()
        relevant = right.sum(1)
        hits = torch.stack([right[:, :k].any(1) for k in ks], dim=1)
        columns.append((hits, (precision * right).sum(1) / relevant.clamp(min=1), relevant))
    return Ranked(*(torch.stack(column) for column in zip(*columns, strict=True)))


def _mean(values: Tensor) -> float | None:
    """None of nothing: JSON knows no NaN."""
    return float(values.double().mean()) if len(values) else None


RULER = Ruler("retrieval", RetrievalOptions, measure, lines)
