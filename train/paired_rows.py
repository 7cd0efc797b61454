"""Paired differences between rows of a sweep: the same seeds, and inside them the same pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.ledger import Entry, latest
from train.statistics import Interval, paired_difference, two_way_bootstrap, two_way_from_replicates
from train.sweep_file import Row, Sweep


def difference_lines(sweep: Sweep, entries: list[Entry]) -> tuple[list[str], list[list[str]], list[str]]:
    """Header and lines of a table: every row against each of its controls, in points of the sweep's first figure.

    Bold where the t-interval over seeds excludes 0. Then what cannot be compared yet, as "ROW with CONTROL".
    """
    header = ["row", "control", f"difference in {sweep.figures[0]}", "over seeds", "over seeds and pictures"]
    lines, without = [], []
    for name, control in ((name, control) for name, controls in sweep.compare.items() for control in controls):
        cells = _difference(sweep, sweep.row(name), sweep.row(control), entries)
        if cells is None:
            without.append(f"{name} with {control}")
        else:
            lines.append([name, control, *cells])
    return header, lines, without


def _difference(sweep: Sweep, ours: Row, control: Row, entries: list[Entry]) -> list[str] | None:
    """None without a seed that both have."""
    figure = sweep.figures[0]
    done, theirs = (latest(entries, row.name, row.setting) for row in (ours, control))
    pairs = [
        (done[seed], theirs[seed])
        for seed in sorted(done.keys() & theirs.keys())
        if figure in done[seed].figures and figure in theirs[seed].figures
    ]
    if not pairs:
        return None
    values = [[100 * entry.figures[figure] for entry in pair] for pair in pairs]
    difference = paired_difference(*np.transpose(values))
    resampled = _over_pictures(pairs, figure)
    mean = f"{difference.mean:+.2f}"
    return [
        f"**{mean}**" if difference.excludes_zero else mean,
        f"{_ends(difference)} ({difference.n} {'seed' if difference.n == 1 else 'seeds'})",
        "" if resampled is None else f"{100 * resampled.low:+.2f} to {100 * resampled.high:+.2f}",
    ]


def _ends(interval: Interval) -> str:
    return "no interval" if interval.low is None else f"{interval.low:+.2f} to {interval.high:+.2f}"


def _over_pictures(pairs: Sequence[tuple[Entry, Entry]], figure: str) -> Interval | None:
    """The two-way bootstrap, where every run of the pairs kept the same sort and number of outcomes."""
    outcomes = [[entry.outcome(figure) for entry in pair] for pair in pairs]
    if any(values is None for pair in outcomes for values in pair):
        return None
    if len({len(values) for pair in outcomes for values in pair}) != 1:
        return None
    differences = np.stack([ours - control for ours, control in outcomes])
    if pairs[0][0].outcomes[figure]["kind"] == "replicates":
        mean = float(np.mean([a.figures[figure] - b.figures[figure] for a, b in pairs]))
        return two_way_from_replicates(differences, mean)
    return two_way_bootstrap(differences)
