"""Multi-scale ensemble voting (specification: IELT, IEEE TMM 2023, and its DINOv2 extension)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fgdemo.data import Sample
from fgdemo.errors import UserError
from fgdemo.losses import batch_hard_triplet
from fgdemo.models import Network, build_network
from fgdemo.models.voting_settings import VotingSettings
from train.methods.base import DataInfo, Method
from train.methods.mixing import Mixing, MixingOptions
from train.options import EncoderOptions, OptimOptions

Preset = Literal["recommended", "as-published-base", "as-published-extension"]

_PUBLISHED = {
    "votes": 24,
    "candidates": 126,
    "refined": 24,
    "final_votes": 24,
    "new_blocks": "random",
    "zero_head": True,
    "quota_floor": 0,
}
PRESETS: dict[str, dict[str, Any]] = {
    "recommended": {"complement": 0.4, "triplet": 0.0},
    # IELT as its logs were made: one scale, both cross-entropies.
    "as-published-base": {**_PUBLISHED, "dilations": (1,), "rates": "v", "complement": 0.4, "triplet": 0.0},
    # The extension as its training loop really worked: no complement, raw distances with a margin of 1.
    "as-published-extension": {
        **_PUBLISHED,
        "dilations": (1, 2, 4),
        "complement": 0.0,
        "triplet": 0.1,
        "margin": 1.0,
        "triplet_space": "raw",
    },
}

_SETTING_OF = {"vote_weights": "weights"}
# What an option acts on, where that is less than every network has.
_ACTS_ON = {
    **dict.fromkeys(("candidates", "refined", "merger", "layer_embedding", "rates", "quota_floor"), "pool"),
    **dict.fromkeys(("votes", "vote_weights", "dilations", "combine", "border", "kernel"), "scores"),
    **dict.fromkeys(("final_votes", "ties", "quota_rate", "quota_warmup"), "order"),
}
_SIZES = {"votes", "candidates", "refined", "final_votes"}
_REASONS = {
    "pool": "works on selected patches, of which {selection} has none",
    "scores": "shapes the scores of patches, which {selection} does not use (random and attention do with --merger)",
    "order": "is about choosing by votes, which {selection} does not do",
}


@dataclass
class VotingOptions(MixingOptions):
    """Voting; what is not given is the preset's, else what VotingSettings makes of the grid"""

    preset: Preset = "recommended"
    """recommended, or the published forms: as-published-base (IELT) or as-published-extension (multi-scale, triplet)"""
    votes: int | None = None
    """patches that each head votes for; not given: 24 of 784 in proportion"""
    candidates: int | None = None
    """size of the cross-layer pool; not given: 126 of 784 in proportion"""
    refined: int | None = None
    """candidates that survive the final vote; not given: 24 of 126 in proportion"""
    final_votes: int | None = None
    """candidates that each head votes for in the end; not given: as many as survive"""
    selection: Literal["votes", "random", "attention", "class-token"] | None = None
    """what selects: the votes, or a control: random tokens, highest mean attention, none (class token only)"""
    vote_weights: Literal["equal", "attention"] | None = None
    """what a vote counts: one, or its share of the head's attention"""
    dilations: tuple[int, ...] | None = None
    """scales of the enhancement: 1 is IELT's, 1 2 4 the extension's"""
    combine: Literal["max", "mean", "product"] | None = None
    """how the scales become one score"""
    border: Literal["zero", "normalised"] | None = None
    """what lies beyond the edge: no votes, or nothing that counts"""
    kernel: Literal["fixed", "learned"] | None = None
    """the published filter, or one learned for each scale"""
    ties: Literal["index", "attention"] | None = None
    """who wins among equal scores: the lowest patch index, or the higher mean attention"""
    merger: bool | None = None
    """merge the patches that were not selected into one token of each block"""
    key_block: bool | None = None
    """classify the survivors by a block of their own"""
    assist: bool | None = None
    """let the refining block's class probabilities assist the final logits"""
    key_token: Literal["trunk", "refined"] | None = None
    """class token of the key block"""
    candidate_norm: bool | None = None
    """normalise trunk tokens before the new blocks"""
    layer_embedding: bool | None = None
    """add a learned vector of its block to each candidate"""
    new_blocks: Literal["copy", "random"] | None = None
    """start the two new blocks as copies of the encoder's last block, or at random"""
    zero_head: bool | None = None
    """start the classifier at zero"""
    rates: Literal["uniform", "v"] | None = None
    """first shares of the blocks in the pool: equal, or IELT's V shape"""
    quota_floor: int | None = None
    """candidates that each block keeps"""
    quota_rate: float = 1e-3
    """how far one step moves the quotas towards the blocks of the final picks; 0: they stay"""
    quota_warmup: float = 10.0
    """epochs before they move"""
    complement: float | None = None
    """share of the cross-entropy of the refining block's class token, against that of the final logits"""
    triplet: float | None = None
    """weight of the batch-hard triplet loss on the trunk's class token; needs --per-class"""
    margin: float | None = None
    """its margin; not given: the preset's, else 0.2"""
    soft_margin: bool = False
    """a smooth hinge without a margin in its place"""
    triplet_space: Literal["unit", "raw"] | None = None
    """distances of embeddings of unit length, or of raw ones"""


class Voting(Method):
    """Attention heads vote for patches, block by block; the winners are refined, voted on again and classified."""

    name = "voting"
    Options = VotingOptions
    options: VotingOptions

    def __init__(self, options: VotingOptions, data: DataInfo) -> None:
        super().__init__(options, data)
        chosen = {**PRESETS[options.preset], **_given(options)}
        self.complement: float = chosen.pop("complement")
        self.triplet: float = chosen.pop("triplet")
        margin: float = chosen.pop("margin", 0.2)
        self.margin = None if options.soft_margin else margin
        self.unit = chosen.pop("triplet_space", "unit") == "unit"
        # A preset's size that does nothing here would only forbid others: it follows from the grid instead.
        idle = _SIZES & set(_idle(options))
        self.settings = {name: value for name, value in chosen.items() if name not in idle}
        self.mixing = Mixing(options, data.num_classes)
        self._picks: Tensor | None = None
        self._blocks = 0
        _check_choices(options)
        if not 0 <= self.complement <= 1:
            raise UserError(f"--complement is {self.complement}; it lies between 0 and 1.")
        if self.triplet < 0:
            raise UserError(f"--triplet is {self.triplet}; it is at least 0 (off).")
        if not 0 <= options.quota_rate <= 1:
            raise UserError(f"--quota-rate is {options.quota_rate}; it lies between 0 (quotas stay) and 1.")
        if self.triplet and self.mixing.mixes:
            raise UserError("Mixed pictures have no single class to form triplets by: leave out --mixup and --cutmix.")

    def build(self, encoder: EncoderOptions) -> Network:
        network = build_network(
            "voting",
            architecture=encoder.encoder,
            num_classes=self.data.num_classes,
            settings=self.settings,
            pretrained=encoder.pretrained and encoder.encoder_weights is None,
            weights=encoder.encoder_weights,
            img_size=encoder.img_size,
            model_args=encoder.encoder_args,
        )
        self._blocks = network.encoder.num_blocks
        if encoder.freeze:
            network.freeze_encoder()
        return network

    def check(self, optim: OptimOptions) -> None:
        if self.triplet and not optim.per_class:
            raise UserError(
                "The triplet loss needs several pictures of each class in a forward pass: add --per-class 2 or more "
                "(or --triplet 0)."
            )

    def training_step(self, model: nn.Module, batch: Sample) -> dict[str, Tensor]:
        images, targets = self.mixing(batch)
        output = model(images)
        losses = {
            "ce": self.mixing.cross_entropy(output.logits, targets),
            "ce_complement": self.mixing.cross_entropy(output.cross_logits, targets),
        }
        total = (1 - self.complement) * losses["ce"] + self.complement * losses["ce_complement"]
        if self.triplet:
            found = batch_hard_triplet(output.class_token, batch.label, margin=self.margin, normalise=self.unit)
            losses |= {"triplet": found.loss, "triplet_active": found.active}
            total = total + self.triplet * found.loss
        self._count(output.picked)
        return {"total": total, **losses}

    def end_step(self, network: Network, total: Callable[[Tensor], Tensor], steps_per_epoch: int) -> None:
        picks, self._picks = self._picks, None
        if self.options.quota_rate and network.settings.selection == "votes":
            after = round(self.options.quota_warmup * steps_per_epoch)
            network.quotas.update(total(picks), rate=self.options.quota_rate, after=after)

    def _count(self, picked: Tensor) -> None:
        """Add (B, R) blocks of the final picks to the counts of this optimiser step."""
        picked = picked.flatten()
        counts = torch.zeros(self._blocks, dtype=torch.int64, device=picked.device)
        counts.scatter_add_(0, picked, torch.ones_like(picked))
        self._picks = counts if self._picks is None else self._picks + counts


def _check_choices(options: VotingOptions) -> None:
    """Refuse what was asked for and could have no effect.

    Raises:
        UserError: an addition to something that another option leaves out.
    """
    if options.key_block is False:
        for flag, asked in (("--assist", options.assist), ("--key-token", options.key_token)):
            if asked:
                raise UserError(f"{flag} is part of the key block, which --key-block false leaves out: drop one.")
    for option in _idle(options):
        if _is_asked(options, option):
            reason = _REASONS[_ACTS_ON[option]].format(selection=f"--selection {options.selection}")
            raise UserError(f"--{option.replace('_', '-')} {reason}: drop it.")


def _idle(options: VotingOptions) -> list[str]:
    """Options that do nothing under the chosen selection."""
    # what decides the logits: a pool of selected patches, the scores of patches, an order by votes
    parts = {"pool", "scores", "order"}
    if options.selection == "class-token":
        parts = set()
    elif options.selection in ("random", "attention"):
        parts = {"pool", "scores"} if options.merger else {"pool"}
    return [option for option, part in _ACTS_ON.items() if part not in parts]


def _is_asked(options: VotingOptions, option: str) -> bool:
    """Whether an option has another value than it would have if it were not given."""
    name = _SETTING_OF.get(option, option)
    defaults = {field.name: field.default for field in (*fields(VotingOptions), *fields(VotingSettings))}
    value, default = getattr(options, option), {**defaults, **PRESETS[options.preset]}[name]
    return value is not None and value != default


def _given(options: VotingOptions) -> dict[str, Any]:
    """Options that were set, by the names of VotingSettings and of the losses."""
    names = {field.name: field.name for field in fields(VotingSettings)}
    names |= {name: name for name in ("complement", "triplet", "margin", "triplet_space")}
    names |= {setting: option for option, setting in _SETTING_OF.items()}
    found = {name: getattr(options, option) for name, option in names.items()}
    return {name: value for name, value in found.items() if value is not None}
