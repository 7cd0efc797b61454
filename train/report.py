"""`python -m train report RUNS...`: curves, figures over seeds and differences of options, as one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgdemo.errors import UserError
from fgdemo.html_page import base64_array, escape, html_page
from fgdemo.palette import colour, mark_css
from train.cli import build_parser, normalise_argv, split_namespace
from train.files import write_text
from train.run_groups import TOP1, RunGroup, RunRecord, differences, find_runs, group_runs
from train.statistics import CONFIDENCE, t_interval

POINTS = 1000
"""A curve of more points is drawn as the means of so many equal stretches."""

_HERE = Path(__file__).parent
_DASH = '<span class="hint">none</span>'
_HINT = (
    f"Mean and standard deviation over the finished seeds, below it Student's {CONFIDENCE:.0%} t-interval of the mean. "
    "The runs of a group differ in the seed alone."
)


@dataclass
class ReportOptions:
    """What is written"""

    out: str = "report.html"
    """the page"""
    title: str = "Training report"
    """its heading"""


def report_command(argv: list[str]) -> None:
    """Parse, read the runs, write the page, say what is not finished or not there.

    Raises:
        UserError: a path that is no run, or a page that cannot be written.
    """
    parser = build_parser("python -m train report", "Compare runs on one page.", (ReportOptions,))
    parser.add_argument("runs", type=str, nargs="+", help="folders of runs, or folders that hold such folders")
    values = parser.parse_args(normalise_argv(argv, (ReportOptions,)))
    (options,) = split_namespace(values, (ReportOptions,))
    runs, missing = find_runs([Path(path) for path in values.runs])
    groups = group_runs(runs)
    page = report_page(groups, missing, options.title)
    out = Path(options.out)
    try:
        write_text(out, page)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another --out.") from error
    for run in runs:
        if not run.finished:
            print(f"{run.folder}: {run.progress}")
    for path in missing:
        print(f"{path}: missing")
    print(f"{out}: {_facts(groups, missing)[0]} in {_facts(groups, missing)[1]}")


def report_page(groups: Sequence[RunGroup], missing: Sequence[Path], title: str) -> str:
    """The whole page, which opens without a network.

    Figures of a group are means over its finished runs, the seed being the unit.

    Raises:
        UserError: plotly is not installed.
    """
    facts = "".join(f"<span>{escape(fact)}</span>" for fact in _facts(groups, missing))
    body = [f'<header><h1>{escape(title)}</h1><p class="facts">{facts}</p></header>']
    body.append(_section("Groups of seeds", _summary(groups), _HINT))
    body.append(_section("Curves", '<div class="controls"></div><div class="charts"></div>', _curve_hint(groups)))
    body.append(_section("Differences in options", _differences(groups)))
    body.append(_section("Runs", _runs(groups, missing)))
    if any(run.evaluated for group in groups for run in group.runs):
        body.append(_section("Evaluation", _evaluation(groups)))
    style, script = ((_HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return html_page(title, "\n".join(body), _data(groups), style=style, script=script)


def _curve_hint(groups: Sequence[RunGroup]) -> str:
    runs = [run for group in groups for run in group.runs]
    sentences = []
    if any(len(group.finished) > 1 for group in groups):
        sentences.append("Thick: mean of the finished seeds, at the steps that all of them logged.")
    if not all(run.finished for run in runs):
        sentences.append("Dotted: unfinished.")
    if any(len(run.curve(metric)[0]) > POINTS for run in runs for metric in run.metrics):
        sentences.append(f"Curves of more than {POINTS:,} points are drawn as the means of so many equal stretches.")
    return " ".join(sentences)


def _facts(groups: Sequence[RunGroup], missing: Sequence[Path]) -> list[str]:
    runs = [run for group in groups for run in group.runs]
    unfinished = sum(not run.finished for run in runs)
    facts = [_count(len(runs), "run"), _count(len(groups), "group")]
    facts += [f"{unfinished} unfinished"] if unfinished else []
    return facts + ([f"{len(missing)} missing"] if missing else [])


def _summary(groups: Sequence[RunGroup]) -> str:
    """A row a group: seeds, epochs, validation top-1, seconds, and top-1 of every split that was evaluated."""
    seeds = sorted({run.seed for group in groups for run in group.runs})
    tops = sorted({name for group in groups for run in group.runs for name in run.evaluated if _is_top1(name)})
    columns: list[tuple[str, Callable[[RunRecord], float | None], Callable[[float], str]]] = [
        ("validation top-1, last", lambda run: run.last, _percent),
        ("validation top-1, best", lambda run: run.best, _percent),
        *((f"{name.split('/')[0]} top-1", lambda run, name=name: run.evaluated.get(name), _percent) for name in tops),
        ("seconds", lambda run: run.seconds, lambda value: f"{value:,.0f}"),
    ]
    rows = [
        [
            _group_head(groups, number),
            _seeds(group, seeds),
            escape(group.options["epochs"]),
            *(_over_seeds([figure(run) for run in group.finished], shown) for _, figure, shown in columns),
        ]
        for number, group in enumerate(groups)
    ]
    return _table(["group", "seeds", "epochs", *(name for name, _, _ in columns)], rows)


def _seeds(group: RunGroup, seeds: Sequence[int]) -> str:
    """The seeds of a group, those under way and those that other groups have."""
    parts = [escape(", ".join(str(run.seed) for run in group.finished)) or _DASH]
    under_way = [str(run.seed) for run in group.runs if not run.finished]
    absent = [str(seed) for seed in seeds if seed not in {run.seed for run in group.runs}]
    parts += [f'<small class="warn">unfinished: {", ".join(under_way)}</small>'] if under_way else []
    parts += [f'<small class="warn">missing: {", ".join(absent)}</small>'] if absent else []
    return "".join(parts)


def _over_seeds(values: Sequence[float | None], shown: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None and np.isfinite(value)]
    if not known:
        return _DASH
    interval = t_interval(known)
    if interval.low is None or interval.high is None:
        return f'<span class="figure">{shown(interval.mean)}</span><small>one seed: no interval</small>'
    spread = float(np.std(known, ddof=1))
    return (
        f'<span class="figure">{shown(interval.mean)} ± {shown(spread)}</span>'
        f"<small>{shown(interval.low)} to {shown(interval.high)}, n = {interval.n}</small>"
    )


def _differences(groups: Sequence[RunGroup]) -> str:
    found = differences([group.options for group in groups])
    if not found:
        return "<p>All runs share their options but for the seed.</p>"
    rows = [[escape(name), *(_DASH if v is None else escape(v) for v in values)] for name, values in found]
    return _table(["option", *(_group_head(groups, number) for number in range(len(groups)))], rows)


def _evaluation(groups: Sequence[RunGroup]) -> str:
    """Every figure that `evaluate` wrote, without counts and the ends of intervals inside one run."""
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.evaluated)
    rows = [
        [escape(name), *(_over_seeds([run.evaluated.get(name) for run in group.finished], _plain) for group in groups)]
        for name in names
        if not name.endswith(("/n", "_n", "_low", "_high"))
    ]
    return _table(["figure", *(_group_head(groups, number) for number in range(len(groups)))], rows)


def _runs(groups: Sequence[RunGroup], missing: Sequence[Path]) -> str:
    rows = []
    for number, group in enumerate(groups):
        for run in group.runs:
            state = escape(run.progress) if run.finished else f'<span class="warn">{escape(run.progress)}</span>'
            figures = [_DASH if value is None else _percent(value) for value in (run.last, run.best)]
            command = f"<details><summary>command</summary><pre>{escape(run.command)}</pre></details>"
            head = [escape(run.folder), _group_head(groups, number), escape(run.seed)]
            rows.append([*head, state, *figures, f"{run.seconds:,.0f}", command])
    rows += [[escape(path), _DASH, _DASH, '<span class="warn">missing</span>', *[_DASH] * 4] for path in missing]
    return _table(["folder", "group", "seed", "state", "val top-1, last", "best", "seconds", "command"], rows)


def _data(groups: Sequence[RunGroup]) -> dict[str, Any]:
    """What the charts show, for report.js."""
    names = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.metrics))
    names.sort(key=lambda name: (name != TOP1, not name.startswith("loss/"), not name.startswith("val/")))
    return {
        "groups": [
            {
                "name": group.name,
                "colour": colour(number),
                "mark": mark_css(number),
                "stepsPerEpoch": group.steps_per_epoch,
            }
            for number, group in enumerate(groups)
        ],
        "metrics": [{"name": name, "lines": _lines(groups, name)} for name in names],
    }


def _lines(groups: Sequence[RunGroup], metric: str) -> list[dict[str, Any]]:
    """The line of each seed and, where several are finished, of their mean; the only line of a group is thick."""
    lines = []
    for number, group in enumerate(groups):
        for run in group.runs:
            curve, thick = run.curve(metric), len(group.runs) == 1
            lines.append(_line(number, f"seed {run.seed}", curve, thick=thick, finished=run.finished))
        if len(group.finished) > 1:
            label = f"mean of {len(group.finished)} seeds"
            lines.append(_line(number, label, group.mean_curve(metric), thick=True, finished=True))
    return [line for line in lines if line["steps"]]


def _line(
    number: int, label: str, curve: tuple[np.ndarray, np.ndarray], *, thick: bool, finished: bool
) -> dict[str, Any]:
    steps, values = (base64_array(thinned(part), "<f4") for part in curve)
    return {"group": number, "label": label, "thick": thick, "finished": finished, "steps": steps, "values": values}


def thinned(values: np.ndarray) -> np.ndarray:
    """(n,) as it is up to POINTS values, else the (POINTS,) means of stretches whose lengths differ by 1 at most."""
    if len(values) <= POINTS:
        return values
    starts = np.arange(POINTS) * len(values) // POINTS
    return np.add.reduceat(values.astype(np.float64), starts) / np.diff(np.append(starts, len(values)))


def _group_head(groups: Sequence[RunGroup], number: int) -> str:
    mark = f'<i class="mark" style="{mark_css(number)}"></i>'
    return f'<span class="group">{mark}<span>{escape(groups[number].name)}</span></span>'


def _section(heading: str, content: str, hint: str = "") -> str:
    below = f'<p class="hint">{escape(hint)}</p>' if hint else ""
    return f"<section><h2>{escape(heading)}</h2>{content}{below}</section>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML, the first of each row its heading."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(f"<tr><th>{first}</th>{''.join(f'<td>{c}</td>' for c in rest)}</tr>" for first, *rest in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _is_top1(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/top1")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}&nbsp;%"


def _plain(value: float) -> str:
    return f"{value:.4g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
