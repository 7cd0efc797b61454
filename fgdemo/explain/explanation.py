"""One explanation object for the app, the API and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from fgdemo.errors import UserError
from fgdemo.explain.activation_maps import ActivationMap, activation_map
from fgdemo.explain.voting_maps import VotingMaps, voting_maps
from fgdemo.explain.voting_trace import Candidate, CandidatePool, trace_votes
from fgdemo.models.field import field_shift
from fgdemo.models.network import Network
from fgdemo.models.voting import VotingNetwork

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
    box: (x0, y0, x1, y1), pixels of the EXIF-oriented source picture that the maps cover: what the network saw, moved
        by half a patch where a stem of padded convolutions reads that far from its cells.
    pool: the candidates of a network that votes itself, whose own votes the maps then are.
    """

    kind: Literal["votes", "activation"]
    grid: tuple[int, int]
    box: tuple[float, float, float, float]
    voting: VotingMaps | None = None
    activation: ActivationMap | None = None
    pool: CandidatePool | None = None

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

    @property
    def scales(self) -> tuple[int, ...]:
        """Scales to choose from among scores: how many patches apart votes lie that strengthen each other."""
        return () if self.voting is None else self.voting.dilations

    def select(
        self,
        block: int | str = "all",
        head: int | str = "all",
        what: str | None = None,
        scale: int | str = "all",
    ) -> MapView:
        """One map with a colour scale shared by all maps of the same sort.

        Blocks and heads count from 0. Votes and scores of several blocks or heads are added, attention is
        averaged. Scores combine all scales, or are those at one of `scales` alone. The colour scale starts at 0 and
        ends at the largest value that any block (and, for a single head, any head; for a single scale, any scale)
        reaches in the same view, so that they can be compared; a map of all blocks has its own.

        Raises:
            UserError: a block, head, view or scale that this explanation does not have.
        """
        what = self.views[0] if what is None else what
        if what not in self.views:
            raise UserError(f"This explanation shows {', '.join(self.views)}, not {what!r}.")
        block = _index("block", block, self.num_blocks)
        head = _index("head", head, self.num_heads)
        place = _place("scale", scale, self.scales if what == "scores" else ())
        if self.activation is not None:
            heat = self.activation.heat()
            return MapView(heat, 0.0, float(heat.max()))
        maps = self._voting_maps(what, one_head=head is not None, one_scale=place is not None)
        if block is None:
            maps = maps.mean(0, keepdims=True) if what == "attention" else maps.sum(0, keepdims=True)
        top = float(maps.max())
        return MapView(maps[block or 0, head or 0, place or 0].astype(np.float32), 0.0, top)

    def candidates(self, block: int | str = "all") -> tuple[Candidate, ...]:
        """Those of a block, from 0, or of all; none where the network does not vote itself.

        Raises:
            UserError: a block that this explanation does not have.
        """
        chosen = _index("block", block, self.num_blocks)
        found = () if self.pool is None else self.pool.candidates
        return found if chosen is None else tuple(candidate for candidate in found if candidate.block == chosen)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the box, the grid, and the maps over all heads of every block (or the activation).

        Of a network that votes itself also the class rows of every head, the scores by scale, and its pool.
        """
        common = {"kind": self.kind, "grid": list(self.grid), "box": [float(v) for v in self.box]}
        if self.voting is not None:
            common |= {
                "blocks": self.num_blocks,
                "heads": self.num_heads,
                "votes_per_head": self.voting.k,
                "dilations": list(self.voting.dilations),
                "votes": self.voting.votes.tolist(),
                "scores": self.voting.scores.tolist(),
            }
            if self.pool is not None:
                # Rounded as doubles: three digits more than a map can show, and a third of the size.
                rows = self.voting.attention.astype(np.float64).round(6)
                scales = self.voting.scale_scores
                common |= {"class_rows": rows.tolist(), "scale_scores": scales.tolist(), **self.pool.to_dict()}
            return common
        return common | {
            "target": self.activation.target,
            "logit": self.activation.logit,
            "exact": self.activation.exact,
            "contributions": self.activation.contributions.tolist(),
        }

    def _voting_maps(self, what: str, one_head: bool, one_scale: bool) -> np.ndarray:
        """(L, H, S, h, w); one head where all count together, one scale where all are combined or there are none."""
        voting = self.voting
        if what == "attention":
            maps = voting.attention if one_head else voting.attention.mean(1, keepdims=True)
        elif what == "votes":
            maps = voting.ballots if one_head else voting.votes[:, None]
        elif one_scale:
            return voting.head_scale_scores() if one_head else voting.scale_scores[:, None]
        else:
            maps = voting.head_scores() if one_head else voting.scores[:, None]
        return maps[:, :, None]


def explain(
    network: Network,
    image: Tensor,
    box: tuple[float, float, float, float],
    *,
    k: int | None = None,
    target: int | None = None,
) -> Explanation:
    """Voting maps where the encoder has class-token attention, else the class activation map.

    A network that votes itself is explained by its own votes and candidates, from one pass.

    image is one preprocessed picture (3, H, W) on the network's device, box the part of the source picture it
    shows; `k` votes per head; `target` the class of an activation map, the predicted one by default.

    Raises:
        UserError: `k` or `target` out of range, `k` other than that of a network that votes itself, or an
            architecture with nothing to show.
    """
    encoder = network.encoder
    if isinstance(network, VotingNetwork):
        if k not in (None, network.settings.votes):
            raise UserError(f"Each head of this network votes for {network.settings.votes} patches; it cannot be {k}.")
        voting, pool = trace_votes(network, image)
        return Explanation("votes", voting.grid, _where_read(network, image, box), voting=voting, pool=pool)
    if encoder.has_class_rows:
        voting = voting_maps(encoder, image, k=k)
        return Explanation("votes", voting.grid, _where_read(network, image, box), voting=voting)
    activation = activation_map(encoder, image, target=target)
    return Explanation("activation", activation.grid, tuple(box), activation=activation)


def _where_read(
    network: Network, image: Tensor, box: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """The box moved so that the cells of a grid over it lie around what their patch tokens read."""
    height, width = image.shape[-2:]
    across, down = field_shift(network.encoder.net)
    x0, y0, x1, y1 = box
    x, y = across / width * (x1 - x0), down / height * (y1 - y0)
    return x0 + x, y0 + y, x1 + x, y1 + y


def _index(sort: str, value: int | str, count: int) -> int | None:
    if value == "all":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        known = f"0 to {count - 1} or 'all'" if count else "only 'all'"
        raise UserError(f"The {sort} must be {known} for this explanation, not {value!r}.")
    return value


def _place(sort: str, value: int | str, known: tuple[int, ...]) -> int | None:
    if value == "all":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value not in known:
        said = f"{', '.join(map(str, known))} or 'all'" if known else "only 'all'"
        raise UserError(f"The {sort} must be {said} for this view, not {value!r}.")
    return known.index(value)
