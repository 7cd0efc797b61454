"""Runs compared on one page: grouping, figures over seeds, curves, refusals."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import ROOT, environment
from support.pages import HOSTILE, island, write_rows, write_run

import train.report as report_module
from fgdemo.errors import UserError
from train.__main__ import main
from train.report import report_page, thinned
from train.run_groups import differences, find_runs, group_runs


def groups_in(*folders: Path) -> list[Any]:
    return group_runs(find_runs(folders)[0])


class Tables(HTMLParser):
    """The text of every cell, by the heading of its section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[str] = []
        self._heading, self._into = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "h2":
            self._heading = ""
        elif tag == "table":
            self.tables[self._heading] = []
        elif tag == "tr":
            self.tables[self._heading].append([])
        elif tag in ("th", "td"):
            self.tables[self._heading][-1].append("")
        self._into = {"h2": "h2", "th": "cell", "td": "cell"}.get(tag, self._into)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h2", "th", "td"):
            self._into = ""

    def handle_data(self, data: str) -> None:
        if self._into == "h2":
            self._heading += data
        elif self._into == "cell":
            self.tables[self._heading][-1][-1] += data.replace("\xa0", " ")


def tables_of(groups: list[Any], missing: Sequence[Path] = ()) -> dict[str, list[list[str]]]:
    return Tables(report_page(groups, missing, "Report")).tables


def lines_of(groups: list[Any], metric: str) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of a metric's lines, by their labels."""
    (found,) = [m for m in island(report_page(groups, [], "Report"))["metrics"] if m["name"] == metric]
    return {
        f"{line['group']} {line['label']}": tuple(
            np.frombuffer(base64.b64decode(line[part]), "<f4").tolist() for part in ("steps", "values")
        )
        for line in found["lines"]
    }


# Which runs ------------------------------------------------------------------------------------------------------


def test_runs_are_found_alone_and_in_folders_once_each(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "sweep" / f"a-{seed}", seed=seed) for seed in (0, 1)]
    (tmp_path / "sweep" / "notes").mkdir()
    other = write_run(tmp_path / "b")
    found, missing = find_runs([runs[1], tmp_path / "sweep", other, tmp_path / "gone"])
    assert [run.folder for run in found] == [runs[1], runs[0], other]
    assert missing == [tmp_path / "gone"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for path in ("empty", "file"):
        with pytest.raises(UserError, match=f"{path} is not the folder of a run and holds none"):
            find_runs([tmp_path / path])
    with pytest.raises(UserError, match=r"no run to report: .*gone cannot be found"):
        find_runs([tmp_path / "gone"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", "{}"),
        ("run.json", '{"method": "unheard", "command": ""}'),
        ("run.json", None),
        ("options.yaml", "nonsense: 3\n"),
        ("options.yaml", "[1,"),
        ("evaluation/test.json", "{"),
        ("evaluation/test.json", "[]"),
    ],
)
def test_damaged_runs_are_named(tmp_path: Path, name: str, content: str | None) -> None:
    folder = write_run(tmp_path / "run", test={"top1": 0.5})
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(UserError, match=r"run.* cannot be read") as caught:
        find_runs([folder])
    assert "\n" not in str(caught.value)


# Groups ----------------------------------------------------------------------------------------------------------


def test_seeds_of_one_setting_are_a_group_whatever_does_not_touch_training(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "a", seed=2, workers=0),
        write_run(tmp_path / "b", seed=1, log_every=5, trackers="none", data_root="elsewhere"),
        write_run(tmp_path / "c", seed=1, lr=0.01),
    ]
    groups = groups_in(*folders)
    assert [[run.folder for run in group.runs] for group in groups] == [[folders[1], folders[0]], [folders[2]]]
    assert [group.name for group in groups] == ["lr=0.001", "lr=0.01"]
    assert differences([group.options for group in groups]) == [("lr", [0.001, 0.01])]


def test_seeds_that_start_from_other_runs_of_a_sweep_are_one_group(tmp_path: Path) -> None:
    weights = [f"runs/pretrain-{seed}-ab12/checkpoint/model.safetensors" for seed in (0, 1)]
    runs = [write_run(tmp_path / str(seed), seed=seed, encoder_weights=weights[seed]) for seed in (0, 1)]
    assert len(groups_in(*runs)) == 1
    other = write_run(tmp_path / "other", seed=1, encoder_weights=weights[0])
    assert len(groups_in(*runs, other)) == 2


def test_an_option_that_an_older_run_lacks_stands_at_its_default(tmp_path: Path) -> None:
    old, new = write_run(tmp_path / "old"), write_run(tmp_path / "new", seed=1)
    text = (old / "options.yaml").read_text()
    (old / "options.yaml").write_text(re.sub("(?m)^label_smoothing:.*\n", "", text))
    assert len(groups_in(old, new)) == 1


def test_names_of_groups_say_what_differs_and_are_unique(tmp_path: Path) -> None:
    many = {"lr": 0.1, "batch_size": 8, "hflip": 0.0, "momentum": 0.5}
    groups = groups_in(write_run(tmp_path / "a"), write_run(tmp_path / "b", **many))
    assert groups[1].name == "hflip=0.0, batch_size=8, lr=0.1 and 1 more"
    three = groups_in(tmp_path / "a", tmp_path / "b", write_run(tmp_path / "c", **{**many, "momentum": 0.7}))
    assert [group.name for group in three[1:]] == [f"hflip=0.0, batch_size=8, lr=0.1 and 1 more ({n})" for n in (2, 3)]
    assert groups_in(tmp_path / "a")[0].name == "classify on scenes, vit_small_patch16_224"


def test_differences_are_all_there_are() -> None:
    found = differences([{"a": 1, "b": [1, 2], "c": 0}, {"a": 1, "b": [1, 3], "d": 5}])
    assert found == [("b", [[1, 2], [1, 3]]), ("c", [0, None]), ("d", [None, 5])]


# How far -----------------------------------------------------------------------------------------------------------


def test_runs_that_ended_by_validation_or_by_state_are_finished(tmp_path: Path) -> None:
    (ended,) = groups_in(write_run(tmp_path / "a"))[0].runs
    assert ended.finished
    assert ended.progress == "finished"
    folder = write_run(tmp_path / "b", epochs=5)
    (under_way,) = groups_in(folder)[0].runs
    assert not under_way.finished
    assert under_way.progress == "unfinished: 2 of 5 epochs, step 4"
    for epoch, step in ((4, 8), (5, 10)):
        state = folder / "state" / f"step_{step:09d}"
        state.mkdir(parents=True)
        (state / "info.json").write_text(json.dumps({"position": {"epoch": epoch, "step": step}}))
        (run,) = groups_in(folder)[0].runs
        assert (run.epochs_done, run.finished) == (epoch, epoch == 5)


def test_a_last_line_cut_short_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", epochs=5)
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5, "epoch": 2, "val/to')
    (run,) = groups_in(folder)[0].runs
    assert run.curve("val/top1")[0].tolist() == [2, 4]
    assert tables_of(groups_in(folder))["Runs"][1][3] == "unfinished: 2 of 5 epochs, step 4"


def test_a_run_that_has_logged_nothing_is_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "metrics.jsonl").unlink()
    (run,) = groups_in(folder)[0].runs
    assert (run.best, run.last, run.seconds, run.steps_per_epoch, run.metrics) == (None, None, 0.0, None, [])
    assert tables_of(groups_in(folder))["Runs"][1][3] == "unfinished: 0 of 2 epochs, step 0"


def test_seconds_add_up_over_resumed_parts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    write_rows(folder, [{"step": i, "epoch": 0, "seconds": s} for i, s in enumerate((10.0, 20.0, 5.0, 8.0, 3.0))])
    assert groups_in(folder)[0].runs[0].seconds == 20 + 8 + 3


# Figures -----------------------------------------------------------------------------------------------------------


def test_figures_over_seeds_have_their_spread_and_interval(tmp_path: Path) -> None:
    folders = [
        write_run(
            tmp_path / str(seed),
            (best, best - 0.1),
            seed=seed,
            test={"top1": best - 0.3, "top1_low": 0.1, "nll": 2.0, "n": 7},
        )
        for seed, best in enumerate((0.90, 0.92, 0.94))
    ]
    tables = tables_of(groups_in(*folders))
    row = dict(zip(*tables["Groups of seeds"], strict=True))
    # t(0.975, 2) = 4.3027; 2 / sqrt(3) = 1.1547
    assert row["validation top-1, best"] == "92.00 % ± 2.00 %87.03 % to 96.97 %, n = 3"
    assert row["validation top-1, last"] == "82.00 % ± 2.00 %77.03 % to 86.97 %, n = 3"
    assert row["test top-1"] == "62.00 % ± 2.00 %57.03 % to 66.97 %, n = 3"
    assert row["seeds"] == "0, 1, 2"
    assert row["seconds"].startswith("41 ± 0")
    evaluated = dict(tables["Evaluation"][1:])
    assert evaluated == {"test/top1": "0.62 ± 0.020.5703 to 0.6697, n = 3", "test/nll": "2 ± 02 to 2, n = 3"}


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    row = dict(zip(*tables_of(groups_in(write_run(tmp_path / "a")))["Groups of seeds"], strict=True))
    assert row["validation top-1, best"] == "75.00 %one seed: no interval"


def test_unfinished_and_missing_seeds_are_named_and_not_averaged(tmp_path: Path) -> None:
    groups = groups_in(
        write_run(tmp_path / "a0", (0.5, 0.6), seed=0),
        write_run(tmp_path / "a1", (0.9,), seed=1, epochs=2),
        *(write_run(tmp_path / f"b{seed}", (0.5, 0.7), seed=seed, lr=0.1) for seed in (0, 1, 2)),
    )
    tables = tables_of(groups, [Path("gone")])
    first, second = (dict(zip(tables["Groups of seeds"][0], row, strict=True)) for row in tables["Groups of seeds"][1:])
    assert first["seeds"] == "0unfinished: 1missing: 2"
    assert first["validation top-1, best"] == "60.00 %one seed: no interval"
    assert second["seeds"] == "0, 1, 2"
    states = {row[0]: row[3] for row in tables["Runs"][1:]}
    assert states[str(tmp_path / "a1")] == "unfinished: 1 of 2 epochs, step 2"
    assert states["gone"] == "missing"
    text = report_page(groups, [Path("gone")], "Report")
    assert "<span>5 runs</span><span>2 groups</span><span>1 unfinished</span><span>1 missing</span>" in text


def test_the_table_of_differences_holds_what_differs_alone(tmp_path: Path) -> None:
    groups = groups_in(write_run(tmp_path / "a"), write_run(tmp_path / "b", lr=0.1, img_size=[96, 64]))
    table = tables_of(groups)["Differences in options"]
    assert table[0] == ["option", "img_size=None, lr=0.001", "img_size=[96, 64], lr=0.1"]
    assert table[1:] == [["img_size", "none", "[96, 64]"], ["lr", "0.001", "0.1"]]
    assert "Differences in options" not in tables_of(groups[:1])


def test_every_run_is_listed_with_its_command(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(seed), seed=seed, command=f"train it --seed {seed}") for seed in (3, 4)]
    rows = tables_of(groups_in(*runs))["Runs"][1:]
    assert [(row[0], row[2], row[-1]) for row in rows] == [
        (str(runs[0]), "3", "commandtrain it --seed 3"),
        (str(runs[1]), "4", "commandtrain it --seed 4"),
    ]


# Curves ------------------------------------------------------------------------------------------------------------


def test_curves_are_the_logged_rows_and_their_mean_at_common_steps(tmp_path: Path) -> None:
    a, b, c = (
        write_run(tmp_path / name, values, seed=seed, epochs=3)
        for seed, (name, values) in enumerate({"a": (0.1, 0.3, 0.5), "b": (0.3, 0.5, 0.9), "c": (1.0,)}.items())
    )
    rows = [json.loads(line) for line in (b / "metrics.jsonl").read_text().splitlines()]
    write_rows(b, [row for row in rows if not (row["step"] == 4 and "val/top1" in row)])
    lines = lines_of(groups_in(a, b, c), "val/top1")
    assert list(lines) == ["0 seed 0", "0 seed 1", "0 seed 2", "0 mean of 2 seeds"]
    assert lines["0 seed 0"] == ([2, 4, 6], pytest.approx([0.1, 0.3, 0.5]))
    assert lines["0 seed 1"] == ([2, 6], pytest.approx([0.3, 0.9]))
    assert lines["0 seed 2"] == ([2], [1.0])
    assert lines["0 mean of 2 seeds"] == ([2, 6], pytest.approx([0.2, 0.7]))


def test_single_and_unfinished_lines_are_marked(tmp_path: Path) -> None:
    groups = groups_in(
        write_run(tmp_path / "a", epochs=9), *(write_run(tmp_path / f"b{s}", seed=s, lr=0.1) for s in (0, 1))
    )
    data = island(report_page(groups, [], "Report"))
    shown = [(line["group"], line["thick"], line["finished"]) for line in data["metrics"][0]["lines"]]
    assert shown == [(0, True, False), (1, False, True), (1, False, True), (1, True, True)]
    assert [group["stepsPerEpoch"] for group in data["groups"]] == [2, 2]
    assert [metric["name"] for metric in data["metrics"]] == ["val/top1", "loss/total"]
    assert len({group["colour"] for group in data["groups"]}) == 2


def test_values_that_are_no_numbers_are_gaps(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    rows = [{"step": i, "epoch": 0, "loss/total": value, "seconds": 1.0} for i, value in ((1, 2.0), (2, float("nan")))]
    write_rows(folder, rows)
    steps, values = lines_of(groups_in(folder), "loss/total")["0 seed 0"]
    assert steps == [1, 2]
    np.testing.assert_array_equal(values, [2.0, np.nan])


def test_long_curves_are_thinned_to_means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report_module, "POINTS", 3)
    np.testing.assert_array_equal(thinned(np.array([1.0, 2, 3])), [1, 2, 3])
    np.testing.assert_allclose(thinned(np.array([1.0, 3, 5, 7, 10, 20, 60])), [2, 6, 30])
    groups = groups_in(write_run(tmp_path / "a"))
    assert lines_of(groups, "loss/total")["0 seed 0"][0] == [1, 2, 3.5]
    assert "Curves of more than 3 points are drawn as the means" in report_page(groups, [], "Report")
    monkeypatch.undo()
    assert "Curves of more than" not in report_page(groups, [], "Report")


# The page and the command --------------------------------------------------------------------------------------------


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", command=HOSTILE, auto_augment=HOSTILE)
    text = report_page(groups_in(run, write_run(tmp_path / "b")), [Path(HOSTILE)], HOSTILE)
    tags = Tables(text).tags
    assert tags.count("script") == 3
    assert "img" not in tags
    assert HOSTILE in island(text)["groups"][0]["name"]


def test_the_scripts_never_write_html() -> None:
    script = (ROOT / "train" / "report.js").read_text(encoding="utf-8")
    assert not [word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write") if word in script]
    assert "://" not in script


def test_the_command_writes_a_page_and_says_what_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        write_run(tmp_path / "runs" / str(seed), seed=seed, epochs=2 + seed)
    assert main(["report", "runs", "gone"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "runs/1: unfinished: 2 of 3 epochs, step 4",
        "gone: missing",
        "report.html: 2 runs in 2 groups",
    ]
    plain = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>Training report</h1>" in plain
    assert main(["report", "runs/0", "--out", "other.html", "--title", "Mine & yours"]) == 0
    assert "<h1>Mine &amp; yours</h1>" in (tmp_path / "other.html").read_text(encoding="utf-8")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == plain


def test_refusals_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(write_run(tmp_path / "run"))
    assert main(["report", str(tmp_path / "gone")]) == 2
    assert "no run to report" in capsys.readouterr().err
    assert main(["report", run, "--out", str(tmp_path / "no" / "x.html")]) == 2
    assert "choose another --out" in capsys.readouterr().err
    monkeypatch.setattr("fgdemo.html_page.find_spec", lambda name: None)
    assert main(["report", run, "--out", str(tmp_path / "x.html")]) == 2
    assert "pip install plotly" in capsys.readouterr().err


def test_real_runs_of_two_seeds_are_one_finished_group(tmp_path: Path, train: Callable[..., Path]) -> None:
    folders = [train("--seed", str(seed), name=f"run-{seed}") for seed in (0, 1)]
    (group,) = groups_in(*folders)
    assert [run.seed for run in group.finished] == [0, 1]
    assert group.steps_per_epoch == 4
    for run in group.runs:
        assert run.best == max(row["val/top1"] for row in run.rows if "val/top1" in row)
        assert run.command.startswith("python -m train classify")
    out = tmp_path / "x.html"
    assert main(["report", *map(str, folders), "--out", str(out)]) == 0
    names = [metric["name"] for metric in island(out.read_text(encoding="utf-8"))["metrics"]]
    assert names == ["val/top1", "val/top5", "val/macro", "val/nll", "val/ece"]


def test_neither_pages_nor_pictures_import_what_they_do_not_need() -> None:
    code = (
        "import sys, train.report, fgdemo.plot.page, fgdemo.plot.picture\n"
        "print([name for name in ('gradio', 'plotly', 'faiss', 'sklearn') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
