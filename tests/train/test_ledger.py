from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.commands import ROOT, environment

from fgdemo.errors import UserError
from train.evaluation.outcomes import pack_bits
from train.ledger import Entry, append, flatten, latest, provenance, read_ledger, setting_of

DONE = Entry("plain", "abc", 0, "done", "classify", {"lr": 0.1}, {"split": "test"}, {"test/top1": 0.5})


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    assert read_ledger(path) == []
    kept = replace(DONE, seed=1, outcomes={"test/top1": pack_bits(np.array([True, False]))})
    append(path, DONE)
    append(path, kept)
    assert read_ledger(path) == [DONE, kept]
    assert read_ledger(path)[1].outcome("test/top1").tolist() == [1, 0]
    assert read_ledger(path)[1].outcome("test/knn") is None
    assert len(path.read_text().splitlines()) == 2


def test_two_processes_append_to_one_ledger_at_once(tmp_path: Path) -> None:
    path, each = tmp_path / "results.jsonl", 150
    code = (
        "import sys; from pathlib import Path\n"
        "from train.ledger import Entry, append\n"
        "path, row = Path(sys.argv[1]), sys.argv[2]\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        f"for seed in range({each}):\n"
        "    append(path, Entry(row, 'abc', seed, 'done', 'classify', {}, {}))\n"
    )
    common = {"cwd": ROOT, "env": environment(), "text": True, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    both = [subprocess.Popen([sys.executable, "-c", code, str(path), name], **common) for name in ("a", "b")]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode == 0
    entries = read_ledger(path)
    for name in ("a", "b"):
        assert [entry.seed for entry in entries if entry.row == name] == list(range(each))
    assert len(entries) == 2 * each


def test_the_newest_finished_trial_of_a_setting_counts() -> None:
    better = replace(DONE, figures={"test/top1": 0.7})
    others = [replace(DONE, setting="xyz"), replace(DONE, row="other"), replace(DONE, status="failed")]
    assert latest([DONE, better, *others], "plain", "abc") == {0: better}


def test_a_line_that_is_no_entry_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(path, DONE)
    path.write_text(path.read_text() + '{"row": 1}\n')
    with pytest.raises(UserError, match=r"results\.jsonl, line 2"):
        read_ledger(path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--ledger"):
        append(tmp_path / "file" / "results.jsonl", DONE)


def test_setting_follows_everything_but_the_order_of_options() -> None:
    one = setting_of("classify", {"lr": 0.1, "epochs": 3}, {"split": "test"})
    assert one == setting_of("classify", {"epochs": 3, "lr": 0.1}, {"split": "test"})
    others = [("voting", {"lr": 0.1, "epochs": 3}, {}), ("classify", {"lr": 0.2, "epochs": 3}, {})]
    others.append(("classify", {"lr": 0.1, "epochs": 3}, {"split": "val"}))
    assert one not in {setting_of(*other) for other in others}


def test_flatten_names_numbers_by_their_place() -> None:
    result = {
        "n": 3,
        "split": "test",
        "strict": True,
        "probe": {"fine": {"top1": 0.5}},
        "curve": [1, 2],
        "ours": [{"name": "k-means", "k": "oracle", "ami": 0.25, "train": {"ami": 0.5}}],
        "arms": [{"name": "grid", "k": 4, "auc": 0.1}],
    }
    assert flatten(result, "test") == {
        "test/n": 3,
        "test/probe/fine/top1": 0.5,
        "test/ours/oracle/k-means/ami": 0.25,
        "test/ours/oracle/k-means/train/ami": 0.5,
        "test/arms/grid/k": 4,
        "test/arms/grid/auc": 0.1,
    }


def test_provenance_says_where_and_with_what() -> None:
    about = provenance()
    assert about.keys() == {"commit", "machine", "python", "torch", "timm", "accelerate"}
    assert "cores" in about["machine"]
    assert "/" not in json.dumps({k: v for k, v in about.items() if k != "machine"})
