from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.commands import ROOT

from train.__main__ import main
from train.evaluation.outcomes import pack_bits, pack_replicates
from train.ledger import Entry, append
from train.sweep_file import Row, Sweep
from train.tables import checkpoint_table, difference_table, discovery_table, markdown, sweep_table, with_tables


def row(name: str) -> Row:
    return Row(name, "classify", {"encoder": name}, {}, (0, 1, 2))


SWEEP = Sweep("toy", "Toy", (row("control"), row("ours")), ("test/top1",), {"ours": ("control",)})


def entry(name: str, seed: int, right: int, *, n: int = 100, figures: dict | None = None) -> Entry:
    outcome = pack_bits(np.arange(n) < right)
    found = figures or {"test/top1": right / n}
    return Entry(
        name, row(name).setting, seed, "done", "classify", {}, {}, found, {"test/top1": outcome}, {"train": 60.0}
    )


def cells(table: str, name: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_means_deviations_and_paired_differences_by_hand() -> None:
    entries = [entry("control", s, r) for s, r in enumerate((50, 60, 70))]
    entries += [entry("ours", s, r) for s, r in enumerate((52, 63, 71))]
    table = sweep_table(SWEEP, entries)
    assert cells(table, "control")[1:3] == ["3", "60.00 ± 10.00"]
    assert cells(table, "control")[-1] == "60"
    # differences 2, 3, 1: mean 2, half-width 4.303 * 1 / sqrt(3) = 2.48
    differences = difference_table(SWEEP, entries)
    assert differences.splitlines()[0].endswith("| over seeds | over seeds and pictures |")
    assert cells(differences, "ours")[1:4] == ["control", "+2.00", "-0.48 to +4.48 (3 seeds)"]
    assert " to " in cells(differences, "ours")[4]
    steady = [*entries[:3], *(entry("ours", s, r) for s, r in enumerate((52, 62, 72)))]
    assert cells(difference_table(SWEEP, steady), "ours")[2:4] == ["**+2.00**", "+2.00 to +2.00 (3 seeds)"]
    twice = replace(SWEEP, compare={"ours": ("control", "ours")})
    assert [line.split(" | ")[1:3] for line in difference_table(twice, entries).splitlines()[2:]] == [
        ["control", "+2.00"],
        ["ours", "+0.00"],
    ]


def test_what_is_missing_is_said() -> None:
    table = sweep_table(SWEEP, [entry("control", 1, 50)])
    assert cells(table, "control")[1] == "1 (missing: 0, 2)"
    assert cells(table, "control")[2] == "50.00"
    assert table.endswith("|\n\nNot run yet: ours.\n")
    assert "| ours" not in table
    without = difference_table(SWEEP, [entry("control", 1, 50)])
    assert without.endswith("|\n\nNo seed in common yet: ours with control.\n")
    assert "| ours" not in without
    one = difference_table(SWEEP, [entry("control", 1, 50), entry("ours", 1, 60), entry("ours", 0, 99)])
    assert cells(one, "ours")[2:4] == ["+10.00", "no interval (1 seed)"]


def test_rows_that_were_not_run_are_one_sentence() -> None:
    names = [f"row-{i:02}" for i in range(30)]
    many = replace(SWEEP, rows=(row("control"), *map(row, names)))
    table = sweep_table(many, [entry("control", seed, 50) for seed in range(3)])
    sentence = table.partition("\n\n")[2]
    assert " ".join(sentence.split()) == f"Not run yet: {', '.join(names)}."
    assert max(map(len, sentence.splitlines())) <= 120
    all_run = sweep_table(SWEEP, [entry(name, 0, 50) for name in ("control", "ours")])
    assert "Not run yet" not in all_run


def test_differences_of_figures_that_are_no_means_use_replicates() -> None:
    def scored(name: str, seed: int, shift: float) -> Entry:
        values = np.linspace(0.2, 0.4, 200) + shift
        base = entry(name, seed, 50, figures={"test/top1": 0.3 + shift})
        return replace(base, outcomes={"test/top1": pack_replicates(values)})

    entries = [scored("control", s, 0) for s in range(3)] + [scored("ours", s, 0.1) for s in range(3)]
    difference = cells(difference_table(SWEEP, entries), "ours")
    assert "+10.00" in difference[2]
    assert difference[4] == "+10.00 to +10.00"


def test_other_test_pictures_are_not_paired() -> None:
    entries = [entry("control", 0, 50), entry("ours", 0, 60, n=120)]
    assert cells(difference_table(SWEEP, entries), "ours")[4] == ""


def test_discovery_names_controls() -> None:
    figures = {
        "test/discovery/ours/oracle/k-means/ami": 0.25,
        "test/discovery/ours/oracle/k-means/train/ami": 0.9,
        "test/discovery/ours/chosen/k-means/ami": 0.1,
        "test/discovery/controls/oracle/raw pixels/ami": 0.5,
        "test/discovery/controls/oracle/raw pixels/ari": 0.4,
        "test/discovery/controls/oracle/classify, epoch 8/ami": 0.3,
        "test/discovery/controls/oracle/classify, epoch 10/ami": 0.3,
    }
    table = discovery_table(SWEEP, [entry("ours", 0, 1, figures=figures)])
    assert table.splitlines()[0] == "| AMI, oracle K | ours |"
    assert cells(table, "k-means")[1] == "0.250"
    assert cells(table, "control: raw pixels")[1] == "0.500"
    assert "0.900" not in table
    assert table.index("epoch 8 ") < table.index("epoch 10 ")
    assert "0.400" in discovery_table(SWEEP, [entry("ours", 0, 1, figures=figures)], "oracle", "ari")
    assert "0.100" in discovery_table(SWEEP, [entry("ours", 0, 1, figures=figures)], "chosen")


def test_bundled_checkpoints_with_their_figures() -> None:
    table = checkpoint_table(ROOT / "checkpoints")
    assert "| `checkpoints/scenes-classify` | `vit_conv_mini_patch16_128` | 97.71 %, 22 errors of 960 |" in table


def test_bars_in_cells_are_escaped() -> None:
    assert markdown(["a"], [["x|y"]]) == "| a |\n|---|\n| x\\|y |\n"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "toy.yaml").write_text("seeds: [0]\nrows: {plain: {}}\nfigures: [test/top1]\n")
    path = tmp_path / "PAGE.md"
    path.write_text("before\n<!-- table: toy.yaml -->\nstale\n<!-- end of table -->\nafter\n")
    return path


def test_marked_tables_are_written_and_checked(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", str(page), "--check"]) == 2
    assert "stale" in page.read_text()
    assert main(["tables", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- table: toy.yaml -->\n| row |")
    assert text.endswith("<!-- end of table -->\nafter\n")
    assert main(["tables", str(page), "--check"]) == 0
    setting = Row("plain", "classify", {}, {}, (0,)).setting
    done = Entry("plain", setting, 0, "done", "classify", {}, {}, {"test/top1": 0.5}, {}, {"train": 1})
    append(page.parent / "train" / "recipes" / "results" / "toy.jsonl", done)
    assert main(["tables", str(page), "--check"]) == 2
    assert main(["tables", str(page.parent / "none.md")]) == 2
    assert "none.md cannot be read" in capsys.readouterr().err


def test_readme_shows_what_the_ledger_holds() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- table:" in text
    assert with_tables(text, ROOT) == text
