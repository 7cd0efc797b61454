"""Whether selected patches lie on the part that tells, beside other selections and chance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fgdemo.errors import UserError
from fgdemo.models.voting_settings import VotingSettings
from train.evaluation.located import Centre, LocatedSplit, as_it_is
from train.evaluation.outcomes import pack_shares
from train.evaluation.ruler import Ruler
from train.evaluation.selections import SELECTIONS, Selected, cover, draw, select, shares_on
from train.evaluation.subject import Subject
from train.launch import leave_signals_to_parent
from train.statistics import paired_difference, t_interval

PACKED = ("picks", "patches", "votes", "attention")
"""Selections whose outcome of every picture is kept."""
_FINEST = 65_535
"""Steps of a packed share whose denominator is not the same for all pictures."""


@dataclass
class PartsOptions:
    """Selected patches on known parts"""

    parts: bool = False
    """share of the selected patches that lie on the telling part: final picks of a voting network, enhanced votes, mean
    attention, random choice and chance; for data sets that know the part (scenes)"""
    parts_object: bool = True
    """also the share on the whole object, where the data set has its mask"""
    parts_centre: Centre = "field"
    """where a patch is: the middle of what its embedding reads, as the app draws it, or of its cell; they differ for
    stems of padded convolutions"""
    parts_patches: int = 0
    """patches of every other selection; 0: as many as the final picks cover, or as a voting network would keep"""
    parts_seed: int = 0
    """draws the random selections"""

    def __post_init__(self) -> None:
        if self.parts_patches < 0:
            raise UserError(
                f"--parts-patches must be at least 1, or 0 for the network's own, not {self.parts_patches}."
            )


def measure(subject: Subject, options: PartsOptions) -> dict[str, Any]:
    """Mean share of every selection on the part, and on the object, with t-intervals over pictures.

    A picture that has no patch on its part counts, with shares of 0: how many there are is told, and "ceiling" is the
    largest share that as many patches could have. Differences are those of what the network chose, patch by patch, to
    each control with the same number of patches in that picture. Every process computes the same. Kept are some 40
    bytes for each patch of each picture.

    Raises:
        UserError: a data set without part boxes, or a network without attention heads.
    """
    catalogue, encoder = subject.catalogue, subject.network.encoder
    if "part_box" not in catalogue.truth:
        raise UserError(f"{catalogue.name} does not know where the telling parts are: --parts is for scenes.")
    if not encoder.has_class_rows:
        raise UserError(
            f"{encoder.name} has no class token whose attention selects patches: --parts is for vision transformers "
            "that have one."
        )
    selected, on_part, on_object = _pass(subject, options)
    patches, own = on_part.shape[1], selected.picks.shape[1] > 0
    if options.parts_patches > patches:
        raise UserError(f"--parts-patches {options.parts_patches} is more than the {patches} patches of a picture.")
    covered = cover(selected.picks, patches)
    counts = covered.sum(axis=1)
    if options.parts_patches or not own:
        kept = options.parts_patches or VotingSettings.for_grid(patches, encoder.num_blocks).refined
        counts = np.full(len(on_part), kept)
    drawn = draw(counts, patches, options.parts_seed)
    targets = {"part": on_part} | ({"object": on_object} if on_object.shape[1] else {})
    shares = {target: shares_on(on, selected, covered, counts, drawn) for target, on in targets.items()}
    ours = "patches" if own else "votes"
    return {
        "n": len(on_part),
        "grid": list(encoder.grid_of(encoder.input_size)),
        "centre": options.parts_centre,
        "seed": options.parts_seed,
        "selected": float(counts.mean()),
        "tokens": selected.picks.shape[1],
        "merged": float((selected.picks == patches).mean()) if own else 0.0,
        "out_of_reach": float((~on_part.any(axis=1)).mean()),
        **{name: _figures(name, shares) for name in shares["part"]},
        "differences": {
            f"{ours} - {name}": {
                target: asdict(paired_difference(found[ours], found[name])) for target, found in shares.items()
            }
            for name in ("votes", "attention", "random", "chance")
            if name != ours
        },
        "outcomes": {
            f"parts/{name}/part": pack_shares(
                shares["part"][name], selected.picks.shape[1] if name == "picks" else _FINEST
            )
            for name in PACKED
            if name in shares["part"]
        },
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The table for people."""
    h, w = result["grid"]
    where = "what a patch reads" if result["centre"] == "field" else "the cell of a patch"
    rows = [
        f"  parts        {result['selected']:.1f} of {h * w} patches ({h} x {w}) selected in {result['n']} pictures",
        f"    share of them on the telling part, by the middle of {where}; 95 % over pictures",
        f"    {100 * result['out_of_reach']:.1f} % of the pictures have no patch there",
    ]
    if result["merged"]:
        rows.append(f"    {100 * result['merged']:.1f} % of the final picks are merged tokens, which lie nowhere")
    for name, description in SELECTIONS.items():
        if name in result:
            found = result[name]
            ends = (
                ""
                if found["part_low"] is None
                else f" ({100 * found['part_low']:.2f} to {100 * found['part_high']:.2f})"
            )
            lift = "" if found["part_lift"] is None else f", {found['part_lift']:.1f} times chance"
            thing = f"; on the object {100 * found['object']:.2f} %" if "object" in found else ""
            rows.append(f"    {description:<33} {100 * found['part']:6.2f} %{ends}{lift}{thing}")
    for name, gaps in result["differences"].items():
        gap = gaps["part"]
        ends = "" if gap["low"] is None else f" ({100 * gap['low']:+.2f} to {100 * gap['high']:+.2f})"
        rows.append(f"    {name}: {100 * gap['mean']:+.2f} points{ends}")
    return rows


def _pass(subject: Subject, options: PartsOptions) -> tuple[Selected, np.ndarray, np.ndarray]:
    """What the network selects in every readable picture of the split, as arrays; (n, N) bool on part and on object."""
    split = subject.images(subject.split, as_it_is)
    loader = DataLoader(
        LocatedSplit(
            split,
            subject.network.encoder,
            subject.preprocessing,
            centre=options.parts_centre,
            with_object=options.parts_object,
        ),
        batch_size=subject.batch_size,
        num_workers=subject.workers,
        worker_init_fn=leave_signals_to_parent,
        generator=torch.Generator(),
    )
    network = subject.network.eval()
    parts: list[tuple[Tensor, ...]] = []
    for batch in loader:
        with subject.accelerator.autocast():
            found = select(network, batch.image.to(subject.accelerator.device))
        parts.append((batch.index, *(places.int().cpu() for places in found), batch.on_part, batch.on_object))
    index, *columns = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    # An unreadable picture was replaced by another one, which must not count twice.
    *selected, on_part, on_object = (column[index == split.rows] for column in columns)
    return Selected(*selected), on_part, on_object


def _figures(name: str, shares: dict[str, dict[str, np.ndarray]]) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for target, found in shares.items():
        interval, chance = t_interval(found[name]), float(found["chance"].mean())
        figures |= {target: interval.mean, f"{target}_low": interval.low, f"{target}_high": interval.high}
        figures[f"{target}_lift"] = interval.mean / chance if chance else None
    return figures


RULER = Ruler("parts", PartsOptions, measure, lines)
