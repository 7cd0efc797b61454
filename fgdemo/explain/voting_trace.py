"""What a voting network voted for on one picture, as it did so, and what came of the candidates."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fgdemo.explain.voting_maps import VotingMaps
from fgdemo.models.votes import confident_votes, head_votes
from fgdemo.models.voting import VotingNetwork, VotingOutput, VotingTrace
from fgdemo.models.voting_settings import Selection

Stage = Literal["all_candidates", "refined_picks", "final"]


class Candidate(NamedTuple):
    """One token of the cross-layer pool.

    block: the trunk block it came from, from 0. y, x: its patch, None for a token merged from a block's other patches.
    score: its enhanced votes there, rank: its place among its block's candidates, from 0; None for a merged token.
    final_votes: votes of the refining block's heads. refined: its place among the survivors, from 0, or None.
    """

    block: int
    y: int | None
    x: int | None
    score: float | None
    rank: int | None
    final_votes: float
    refined: int | None


@dataclass(frozen=True)
class CandidatePool:
    """The cross-layer pool of one picture and C classes, and the probabilities before and after the final vote.

    candidates: by block, the best of each first, then merged tokens; empty where only a class token is classified.
    quotas: candidates of each of the L blocks, merged ones not counted.
    selection: how candidates and survivors were chosen.
    probabilities: (C,) float32 each. "all_candidates" (IELT's global feature): of the refining block's class token,
        which has seen the whole pool. "refined_picks": of the key block's, which sees the survivors alone. "final": the
        network's answer. A stage that the network does not have is left out, and so is one that is the answer.
    assistance: (C,) float32, what the answer's logits have more than those of the refined picks: the probabilities
        under "all_candidates" times the row sums of the classifier; zero in a network without assistance.
    """

    candidates: tuple[Candidate, ...]
    quotas: tuple[int, ...]
    selection: Selection
    probabilities: Mapping[Stage, np.ndarray]
    assistance: np.ndarray

    def refined_of(self, block: int) -> int:
        """Survivors that came from a block."""
        return sum(c.block == block and c.refined is not None for c in self.candidates)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `refined` are the survivors, best first, as places in `candidates`."""
        survivors = {c.refined: place for place, c in enumerate(self.candidates) if c.refined is not None}
        return {
            "selection": self.selection,
            "quotas": list(self.quotas),
            "candidates": [candidate._asdict() for candidate in self.candidates],
            "refined": [survivors[place] for place in sorted(survivors)],
            "probabilities": {stage: shares.tolist() for stage, shares in self.probabilities.items()},
            "assistance": self.assistance.tolist(),
        }


@torch.no_grad()
def trace_votes(network: VotingNetwork, image: Tensor) -> tuple[VotingMaps, CandidatePool]:
    """Maps and pool of one preprocessed picture (3, H, W), from one pass of the network in evaluation mode."""
    output, trace = network.trace(image.unsqueeze(0))
    output, trace = (type(of)(*(value.cpu() for value in of)) for of in (output, trace))
    grid = network.encoder.grid_of(image.shape[-2:])
    return _maps(network, trace, grid), _pool(network, output, trace, grid)


def _maps(network: VotingNetwork, trace: VotingTrace, grid: tuple[int, int]) -> VotingMaps:
    settings, rows = network.settings, trace.rows[0]
    count = head_votes if settings.weights == "equal" else confident_votes
    return VotingMaps.of(
        rows,
        count(rows[:, :, None], settings.votes),
        trace.votes[0],
        trace.scores[0],
        trace.scale_scores[0],
        grid=grid,
        k=settings.votes,
        # A copy, so that whoever keeps the maps does not keep the network.
        enhancement=copy.deepcopy(network.enhancement).cpu().requires_grad_(False),
    )


def _pool(network: VotingNetwork, output: VotingOutput, trace: VotingTrace, grid: tuple[int, int]) -> CandidatePool:
    settings, blocks = network.settings, network.encoder.num_blocks
    candidates: tuple[Candidate, ...] = ()
    if network.pool_size:
        merged = network.pool_size - len(trace.block)
        y, x = (trace.position[0] // grid[1]).tolist(), (trace.position[0] % grid[1]).tolist()
        places = [trace.block.tolist(), y, x, trace.score[0].tolist(), trace.rank.tolist()]
        tokens = [*zip(*places, strict=True), *((block, None, None, None, None) for block in range(merged))]
        place = {candidate: i for i, candidate in enumerate(trace.refined[0].tolist())}
        votes = trace.final_votes[0].tolist()
        candidates = tuple(Candidate(*token, votes[i], place.get(i)) for i, token in enumerate(tokens))
    probabilities: dict[Stage, np.ndarray] = {}
    if settings.key_block and candidates:
        probabilities["all_candidates"] = _probability(output.cross_logits)
        if settings.assist:
            probabilities["refined_picks"] = _probability(output.key_logits)
    return CandidatePool(
        candidates=candidates,
        quotas=tuple(trace.quotas.tolist()) if candidates else (0,) * blocks,
        selection=settings.selection,
        probabilities={**probabilities, "final": _probability(output.logits)},
        assistance=(output.logits - output.key_logits)[0].float().numpy(),
    )


def _probability(logits: Tensor) -> np.ndarray:
    return logits[0].float().softmax(dim=-1).numpy()
