"""What a voting network is made of: every choice that shapes its forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fgdemo.errors import UserError
from fgdemo.models.quotas import Start
from fgdemo.models.votes import Border, Combine, default_votes

Selection = Literal["votes", "random", "attention", "class-token"]


@dataclass(frozen=True)
class VotingSettings:
    """IELT and its multi-scale extension as named choices; the defaults are what this project recommends.

    Attributes:
        votes: patches that each head of a trunk block votes for.
        candidates: T, size of the cross-layer pool.
        refined: R, candidates that survive the final vote.
        final_votes: candidates that each head of the refining block votes for.
        selection: what chooses candidates and survivors: the votes, or a control: at random, by mean attention,
            none at all (class token only).
        weights: a vote counts one, or its share of the head's attention to what it votes for.
        dilations: scales of the enhancement; (1,) is IELT's, (1, 2, 4) the extension's.
        combine: how the responses of the scales become a score.
        border: cells beyond the grid count as zero, or not at all.
        kernel: the published filter, or one learned for each scale through a straight-through gate; controls whose
            choice does not depend on scores keep the published one.
        ties: among equal scores the lowest index wins, or the higher mean attention.
        merger: each block adds one token that merges its patches that were not selected.
        key_block: classify the survivors by a block of their own; without it the refining block's class token is
            classified.
        assist: add the refining block's class probabilities, weighted by the classifier's row sums.
        key_token: class token of the key block: the trunk's, or the refining block's.
        candidate_norm: normalise trunk tokens before they enter the new blocks.
        layer_embedding: add a learned vector of its block to every candidate.
        new_blocks: the two new blocks and their norms start as copies of the encoder's last ones, which they replace,
            or at random.
        zero_head: the classifier starts at zero, whatever came with the weights.
        rates: first shares of the blocks in the pool.
        quota_floor: candidates that every block keeps.
    """

    votes: int
    candidates: int
    refined: int
    final_votes: int
    selection: Selection = "votes"
    weights: Literal["equal", "attention"] = "equal"
    dilations: tuple[int, ...] = (1, 2, 4)
    combine: Combine = "max"
    border: Border = "zero"
    kernel: Literal["fixed", "learned"] = "fixed"
    ties: Literal["index", "attention"] = "index"
    merger: bool = False
    key_block: bool = True
    assist: bool = True
    key_token: Literal["trunk", "refined"] = "trunk"
    candidate_norm: bool = False
    layer_embedding: bool = False
    new_blocks: Literal["copy", "random"] = "copy"
    zero_head: bool = False
    rates: Start = "uniform"
    quota_floor: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.dilations, list):
            object.__setattr__(self, "dilations", tuple(self.dilations))
        hints = get_type_hints(type(self))
        for field in fields(self):
            value, hint = getattr(self, field.name), hints[field.name]
            if get_origin(hint) is Literal and value not in get_args(hint):
                raise UserError(f"{field.name} is one of {', '.join(get_args(hint))}, not {value!r}.")
            if hint is bool and not isinstance(value, bool):
                raise UserError(f"{field.name} is true or false, not {value!r}.")
            least = 0 if field.name == "quota_floor" else 1
            if hint is int and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise UserError(f"{field.name} is a whole number of at least {least}, not {value!r}.")
        whole = isinstance(self.dilations, tuple) and all(type(d) is int and 0 < d < 64 for d in self.dilations)
        if not whole or not self.dilations:
            raise UserError(f"dilations are whole numbers from 1 to 63, at least one, not {self.dilations!r}.")
        if self.refined > self.candidates:
            raise UserError(f"{self.refined} refined tokens cannot come from {self.candidates} candidates.")
        if self.final_votes > self.candidates:
            raise UserError(f"Each head can vote for 1 to {self.candidates} candidates, not {self.final_votes}.")

    @classmethod
    def for_grid(cls, patches: int, blocks: int, **chosen: Any) -> VotingSettings:
        """Settings for a trunk of `blocks` blocks over so many patches.

        What is not chosen keeps the published proportions: 24 of 784 patches a head, 126 candidates, 24 survivors.

        Raises:
            UserError: a value that cannot be.
        """
        given = {name: value for name, value in chosen.items() if value is not None}
        floor = given.get("quota_floor", 1)
        votes = given.setdefault("votes", default_votes(patches))
        if votes > patches:
            raise UserError(f"Each head can vote for 1 to {patches} patches, not {votes}.")
        least = max(blocks * floor, min(8, patches))
        total = given.setdefault("candidates", min(blocks * patches, max(least, round(patches * 126 / 784))))
        refined = given.setdefault("refined", min(total, max(min(4, total), round(total * 24 / 126))))
        given.setdefault("final_votes", refined)
        return cls(**given)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VotingSettings:
        """The inverse of `to_dict`, for content of a checkpoint.

        Raises:
            UserError: a name that is not known, or a value that cannot be.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise UserError(
                f"Unknown settings of a voting network: {', '.join(unknown)}. A newer fgdemo may know them."
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"The settings of the voting network are incomplete: {error}.") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "dilations": list(self.dilations)}
