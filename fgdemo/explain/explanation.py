"""One explanation object for the app, the API and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from fgdemo.errors import UserError
from fgdemo.explain.activation_maps import ActivationMap, activation_map
from fgdemo.explain.voting_maps import VotingMaps, voting_maps
from fgdemo.models.network import Network

VIEWS = ("votes", "scores", "attention")


class MapView(NamedTuple):
    """A map (h, w) float32 to draw and the ends of its colour scale."""

    map: np.ndarray
    vmin: float
    vmax: float


@dataclass(frozen=True)
class Explanation:
    """What a picture's classification rests on.

    kind: "votes" for transformers with class-token attention, "activation" for all others.
    grid: (h, w) of the maps.
    box: (x0, y0, x1, y1), pixels of the EXIF-oriented source picture that the network saw; the maps cover it.
    """

    kind: Literal["votes", "activation"]
    grid: tuple[int, int]
    box: tuple[float, float, float, float]
    voting: VotingMaps | None = None
    activation: ActivationMap | None = None

    @property
    def num_blocks(self) -> int:
        """Blocks to choose from; 0 for activation maps."""
        return 0 if self.voting is None else self.voting.attention.shape[0]

    @property
    def num_heads(self) -> int:
        """Heads to choose from; 0 for activation maps."""
        return 0 if self.voting is None else self.voting.attention.shape[1]

    @property
    def views(self) -> tuple[str, ...]:
        """What `select` can show."""
        return VIEWS if self.kind == "votes" else ("activation",)

    def select(self, block: int | str = "all", head: int | str = "all", what: str | None = None) -> MapView:
        """One map with a colour scale shared by all maps of the same sort.

        Blocks and heads count from 0. Votes and scores of several blocks or heads are added, attention is
        averaged. The scale starts at 0 and ends at the largest value that any block (and, for a single head, any
        head) reaches in the same view, so that blocks can be compared; a map of all blocks has its own scale.

        Raises:
            UserError: a block, head or view that this explanation does not have.
        """
        what = self.views[0] if what is None else what
        if what not in self.views:
            raise UserError(f"This explanation shows {', '.join(self.views)}, not {what!r}.")
        block = _index("block", block, self.num_blocks)
        head = _index("head", head, self.num_heads)
        if self.activation is not None:
            heat = self.activation.heat()
            return MapView(heat, 0.0, float(heat.max()))
        maps = self._voting_maps(what, one_head=head is not None)
        if block is None:
            maps = maps.mean(0, keepdims=True) if what == "attention" else maps.sum(0, keepdims=True)
        top = float(maps.max())
        chosen = maps[block or 0]
        return MapView(chosen[head or 0].astype(np.float32), 0.0, top)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the box, the grid, and the maps over all heads of every block (or the activation)."""
        common = {"kind": self.kind, "grid": list(self.grid), "box": [float(v) for v in self.box]}
        if self.voting is not None:
            return common | {
                "blocks": self.num_blocks,
                "heads": self.num_heads,
                "votes_per_head": self.voting.k,
                "dilations": list(self.voting.dilations),
                "votes": self.voting.votes.tolist(),
                "scores": self.voting.scores.tolist(),
            }
        return common | {
            "target": self.activation.target,
            "logit": self.activation.logit,
            "exact": self.activation.exact,
            "contributions": self.activation.contributions.tolist(),
        }

    def _voting_maps(self, what: str, one_head: bool) -> np.ndarray:
        """(L, H, h, w) for a single head, (L, 1, h, w) over all heads."""
        voting = self.voting
        if what == "attention":
            return voting.attention if one_head else voting.attention.mean(1, keepdims=True)
        if what == "votes":
            return voting.ballots if one_head else voting.votes[:, None]
        return voting.head_scores() if one_head else voting.scores[:, None]


def explain(
    network: Network,
    image: Tensor,
    box: tuple[float, float, float, float],
    *,
    k: int | None = None,
    target: int | None = None,
) -> Explanation:
    """Voting maps where the encoder has class-token attention, else the class activation map.

    image is one preprocessed picture (3, H, W) on the network's device, box the part of the source picture it
    shows; `k` votes per head; `target` the class of an activation map, the predicted one by default.

    Raises:
        UserError: `k` or `target` out of range, or an architecture with nothing to show.
    """
    encoder = network.encoder
    if encoder.has_class_rows:
        voting = voting_maps(encoder, image, k=k)
        return Explanation("votes", voting.grid, tuple(box), voting=voting)
    activation = activation_map(encoder, image, target=target)
    return Explanation("activation", activation.grid, tuple(box), activation=activation)


def _index(sort: str, value: int | str, count: int) -> int | None:
    if value == "all":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        known = f"0 to {count - 1} or 'all'" if count else "only 'all'"
        raise UserError(f"The {sort} must be {known} for this explanation, not {value!r}.")
    return value
