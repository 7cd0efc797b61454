"""What the Explain tab tells of a network that votes: its blocks' quotas, and the probabilities on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fgdemo.ui.render import escape, percent

if TYPE_CHECKING:
    import numpy as np

    from fgdemo.explain.voting_trace import CandidatePool

_TITLES = {"all_candidates": "All", "refined_picks": "Refined", "final": "Final"}
_WHICH = ("first picture", "second picture")


def quotas(pools: Sequence[CandidatePool], colors: np.ndarray) -> str:
    """Candidates of each block as bars in the colours of the blocks, and how many of them each picture refined.

    colors (L, 3) uint8. The quotas are those of the network, the same for every picture.
    """
    first = pools[0]
    if not first.candidates:
        return (
            '<p class="fg-hint">A control: this network classifies its class token alone, so what its heads vote for '
            "chooses nothing.</p>"
        )
    refined = ["Refined"] if len(pools) == 1 else [f"Refined, {which}" for which in _WHICH]
    rows = []
    for block, quota in enumerate(first.quotas):
        color = "#" + bytes(colors[block].tolist()).hex()
        width = 100 * quota / max(first.quotas)
        picks = "".join(f"<td>{pool.refined_of(block)}</td>" for pool in pools)
        rows.append(
            f'<tr><th scope="row"><i style="background:{color}"></i>{block}</th><td><div class="ex-quota">'
            f'<span><i style="width:{width:.2f}%;background:{color}"></i></span><b>{quota}</b></div></td>{picks}</tr>'
        )
    merged = sum(candidate.y is None for candidate in first.candidates)
    note = (
        "Each block adds one more, merged from its other patches, which has no place in the picture." if merged else ""
    )
    return _part("Blocks", "ex-quotas", ("Block", "Candidates", *refined), rows, note)


def probabilities(pool: CandidatePool, classes: Sequence[str], top: int, aside: str = "") -> str:
    """Classes at each stage side by side: the `top` most probable ones of the answer, and what leads at another."""
    stages = pool.probabilities
    order = (-stages["final"]).argsort(kind="stable").tolist()
    leaders = {int(shares.argmax()) for shares in stages.values()}
    rows = [
        f'<tr><th scope="row">{escape(classes[c])}</th>'
        + "".join(_share(float(shares[c]), c == int(shares.argmax())) for shares in stages.values())
        + "</tr>"
        for place, c in enumerate(order)
        if place < top or c in leaders
    ]
    title = f"Probabilities, {aside}" if aside else "Probabilities"
    return _part(title, "ex-stages", ("Class", *(_TITLES[stage] for stage in stages)), rows, _said_of(pool))


def panel(pools: Sequence[CandidatePool], colors: np.ndarray, classes: Sequence[str], top: int) -> str:
    """All of it, of one picture or of two."""
    asides = ("",) if len(pools) == 1 else _WHICH
    stages = "".join(probabilities(pool, classes, top, aside) for pool, aside in zip(pools, asides, strict=True))
    return f'<div class="ex-parts" data-pictures="{len(pools)}">{quotas(pools, colors)}{stages}</div>'


def _said_of(pool: CandidatePool) -> str:
    """What the stages are."""
    if not pool.candidates:
        return "Of the class token alone."
    if set(pool.probabilities) == {"final"}:
        return "Of a class token that has seen all candidates."
    first, second = "All: of a class token that has seen every candidate.", "of one that sees the refined picks alone"
    if "refined_picks" not in pool.probabilities:
        return f"{first} Final: {second}; this is the answer."
    return f"{first} Refined: {second}. Final: the answer, the second with the assistance of the first."


def _share(share: float, leads: bool) -> str:
    return (
        f'<td{" class=ex-leads" if leads else ""}><div class="ex-share"><b>{escape(percent(share))}</b>'
        f'<span><i style="width:{100 * share:.2f}%"></i></span></div></td>'
    )


def _part(title: str, kind: str, columns: Iterable[str], rows: Iterable[str], note: str) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    hint = f'<p class="fg-hint">{escape(note)}</p>' if note else ""
    return (
        f'<section class="fg-card ex-part"><h3>{escape(title)}</h3><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>{hint}</section>"
    )
