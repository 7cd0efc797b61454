"""Tables in Markdown from the ledger and from the bundled checkpoints: nothing in them is typed by hand.

`python -m train tables` writes them between the marks in README.md, such as

    <!-- table: train/recipes/sweeps/classify.yaml -->
    <!-- end of table -->
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fgdemo.errors import UserError
from train.cli import build_parser, normalise_argv, split_namespace
from train.files import write_text
from train.ledger import RESULTS, Entry, latest, read_ledger
from train.metrics import wilson_interval
from train.paired_rows import difference_lines
from train.sweep_file import Sweep, read_sweep

_MARK = re.compile(r"(<!-- table: (?P<what>\S+)(?P<rest>[^>]*?) -->\n)(?P<body>.*?)(<!-- end of table -->)", re.DOTALL)


@dataclass
class TablesOptions:
    """Which file"""

    check: bool = False
    """change nothing, fail where a table is not what the ledger gives"""


def tables_command(argv: list[str]) -> None:
    """Rewrite the tables of a Markdown file, or check them.

    Raises:
        UserError: with `--check`, where a table differs.
    """
    parser = build_parser("python -m train tables", "Write the tables of README.md from the ledger.", (TablesOptions,))
    parser.add_argument("file", type=str, nargs="?", default="README.md", help="the Markdown file")
    values = parser.parse_args(normalise_argv(argv, (TablesOptions,)))
    (options,) = split_namespace(values, (TablesOptions,))
    path = Path(values.file)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    fresh = with_tables(text, path.parent)
    if options.check and fresh != text:
        raise UserError(f"A table in {path} is not what the ledger gives: run python -m train tables {path}.")
    if fresh != text:
        write_text(path, fresh)


def with_tables(text: str, root: Path) -> str:
    """Markdown with every marked table made anew from the files below `root`."""

    def fill(match: re.Match[str]) -> str:
        return match.group(1) + make_table(root, match["what"], match["rest"].split()) + match.group(5)

    return _MARK.sub(fill, text)


def make_table(root: Path, what: str, words: Sequence[str]) -> str:
    """The table that a mark asks for: of a folder of checkpoints, or of a sweep file, its `differences` or `discovery`.

    Raises:
        UserError: a sweep that cannot be read.
    """
    path = root / what
    if path.is_dir():
        return checkpoint_table(path)
    sweep = read_sweep(path)
    entries = read_ledger(root / RESULTS / f"{sweep.name}.jsonl")
    tables = {"discovery": discovery_table, "differences": difference_table}
    return tables.get("".join(words[:1]), sweep_table)(sweep, entries, *words[1:])


def sweep_table(sweep: Sweep, entries: list[Entry]) -> str:
    """One line a row: mean and standard deviation over seeds, seconds, missing seeds; a sentence of rows not run."""
    header = ["row", "seeds", *sweep.figures, "s"]
    lines, unrun = [], []
    for row in sweep.rows:
        done = latest(entries, row.name, row.setting)
        found = [done[seed] for seed in row.seeds if seed in done]
        if not found:
            unrun.append(row.name)
            continue
        missing = [seed for seed in row.seeds if seed not in done]
        seeds = str(len(found)) + (f" (missing: {', '.join(map(str, missing))})" if missing else "")
        seconds = f"{np.mean([entry.seconds['train'] for entry in found]):.0f}"
        lines.append([row.name, seeds, *(_mean_and_deviation(found, figure) for figure in sweep.figures), seconds])
    return markdown(header, lines) + _sentence("Not run yet", unrun)


def difference_table(sweep: Sweep, entries: list[Entry]) -> str:
    """One line for every row and control that the sweep compares; a sentence of those without a common seed."""
    header, lines, without = difference_lines(sweep, entries)
    return markdown(header, lines) + _sentence("No seed in common yet", without)


def _sentence(what: str, names: Sequence[str]) -> str:
    """What stands below a table; nothing without names."""
    if not names:
        return ""
    text = f"{what}: {', '.join(names)}."
    return "\n" + textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def discovery_table(sweep: Sweep, entries: list[Entry], given_k: str = "oracle", figure: str = "ami") -> str:
    """One line for every way to divide the classes, one column for every row of the sweep that was scored so."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in sweep.rows:
        found = list(latest(entries, row.name, row.setting).values())
        pattern = re.compile(rf"[a-z]+/discovery/(?P<side>ours|controls)/{given_k}/(?P<name>[^/]+)/{figure}")
        paths = {path: pattern.fullmatch(path) for entry in found for path in entry.figures}
        for path, match in paths.items():
            if match:
                place = cells.setdefault((match["side"], match["name"]), {})
                place[row.name] = _mean_and_deviation(found, path, scale=1, digits=3)
    scored = [row.name for row in sweep.rows if any(row.name in place for place in cells.values())]
    # epoch 8 comes before epoch 10
    order = sorted(cells, key=lambda key: (key[0] != "ours", [part.zfill(6) for part in re.split(r"(\d+)", key[1])]))
    lines = [
        [name if side == "ours" else f"control: {name}", *(cells[side, name].get(row, "") for row in scored)]
        for side, name in order
    ]
    return markdown([f"{figure.upper() if figure in ('ami', 'ari') else figure}, {given_k} K", *scored], lines)


def checkpoint_table(folder: Path) -> str:
    """The checkpoints below a folder, with the figures that they carry."""
    lines = []
    for path in sorted(folder.glob("*/config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        ours = config["fgdemo"]
        metric = next((m for m in ours["metrics"] if m["split"] == "test" and m["name"] == "top1"), None)
        if metric is None:
            continue
        n, right = metric["n"], round(metric["value"] * metric["n"])
        low, high = wilson_interval(right, n)
        network = config.get("architecture") or ours["network_args"].get("architecture") or ours["network"]
        lines.append(
            [
                f"`{folder.name}/{path.parent.name}`",
                f"`{network}`",
                f"{100 * metric['value']:.2f} %, {n - right} errors of {n}",
                f"{100 * low:.2f} to {100 * high:.2f}",
                f"{ours['training']['seconds']:,} s",
            ]
        )
    return markdown(["checkpoint", "network", "test top-1", "interval", "trained in"], lines)


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; bars in cells are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, lines)]) + "\n"


def _mean_and_deviation(entries: Sequence[Entry], figure: str, scale: float = 100, digits: int = 2) -> str:
    values = [scale * entry.figures[figure] for entry in entries if figure in entry.figures]
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"
