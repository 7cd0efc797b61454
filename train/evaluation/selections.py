"""Which patches a network selects, and controls of the same size: votes, attention, random choice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fgdemo.data import keyed_seed
from fgdemo.models import Network
from fgdemo.models.votes import default_votes, enhance, head_votes, mean_attention, ranking
from fgdemo.models.voting import VotingNetwork

SELECTIONS = {
    "picks": "final picks, every token counted",
    "patches": "patches that they cover",
    "candidates": "candidates, every token counted",
    "votes": "by enhanced votes over all blocks",
    "attention": "by mean attention over all blocks",
    "random": "at random",
    "ceiling": "the best there is",
    "chance": "all patches",
}
DRAWS = 16
"""Random choices of each picture; their shares are averaged."""


class Selected(NamedTuple):
    """What a network selects of N patches in each of B pictures, all int64.

    votes (B, N) and attention (B, N) are orders of the patches, the best first. picks (B, R) and candidates (B, T) are
    the patches of its tokens, several of which may share one; N is that of a merged token, which has no place. Both are
    (B, 0) for a network that selects nothing itself.
    """

    votes: Tensor
    attention: Tensor
    picks: Tensor
    candidates: Tensor


@torch.inference_mode()
def select(network: Network, images: Tensor) -> Selected:
    """What a network makes of (B, 3, H, W) preprocessed pictures; its encoder must have class rows.

    A voting network is asked for the trace of the pass that classifies. Of any other the heads vote as in the app.
    """
    if isinstance(network, VotingNetwork) and network.settings.selection != "class-token":
        _, trace = network.trace(images)
        merged = trace.final_votes.shape[1] - trace.position.shape[1]
        place = F.pad(trace.position, (0, merged), value=trace.scores.shape[-1])
        rows, scores, picks, candidates = trace.rows, trace.scores, place.gather(1, trace.refined), trace.position
    else:
        rows, grid = network.encoder.class_rows(images)
        scores = enhance(head_votes(rows, default_votes(rows.shape[-1])), grid)
        picks = candidates = torch.zeros((len(rows), 0), dtype=torch.int64, device=rows.device)
    return Selected(ranking(scores.sum(1)), ranking(mean_attention(rows).mean(1)), picks, candidates)


def cover(places: np.ndarray, patches: int) -> np.ndarray:
    """(n, K) patches, N for none -> (n, N) bool: those that are there at least once."""
    covered = np.zeros((len(places), patches + 1), bool)
    np.put_along_axis(covered, places, True, axis=1)
    return covered[:, :patches]


def draw(counts: np.ndarray, patches: int, seed: int) -> np.ndarray:
    """How often each of N patches is among (n,) of them at random, over `DRAWS` draws: (n, N) float64."""
    generator = np.random.default_rng(keyed_seed("parts", seed))
    often = np.zeros((len(counts), patches))
    for _ in range(DRAWS):
        place = generator.random(often.shape).argsort(axis=1).argsort(axis=1)
        often += place < counts[:, None]
    return often / DRAWS


def shares_on(
    on: np.ndarray, selected: Selected, covered: np.ndarray, counts: np.ndarray, drawn: np.ndarray
) -> dict[str, np.ndarray]:
    """Share of every selection that lies on something, (n,) float64 each, in the order of `SELECTIONS`.

    Args:
        on: (n, N) bool, patches that lie on it.
        selected: of n pictures, as arrays.
        covered: (n, N) bool patches of the final picks.
        counts: (n,) patches that votes, attention and the random choice take. The share of none is 0.
        drawn: (n, N) how often the random choice takes each patch.
    """

    def of_tokens(places: np.ndarray) -> np.ndarray:
        return np.take_along_axis(np.pad(on, ((0, 0), (0, 1))), places, axis=1).mean(axis=1)

    def of_first(order: np.ndarray) -> np.ndarray:
        taken = np.arange(on.shape[1]) < counts[:, None]
        return (np.take_along_axis(on, order, axis=1) & taken).sum(axis=1) / counts.clip(min=1)

    own = {}
    if selected.picks.shape[1]:
        own = {
            "picks": of_tokens(selected.picks),
            "patches": (on & covered).sum(axis=1) / covered.sum(axis=1).clip(min=1),
            "candidates": of_tokens(selected.candidates),
        }
    return own | {
        "votes": of_first(selected.votes),
        "attention": of_first(selected.attention),
        "random": (on * drawn).sum(axis=1) / counts.clip(min=1),
        "ceiling": of_first((~on).argsort(axis=1, kind="stable")),
        "chance": on.mean(axis=1),
    }
