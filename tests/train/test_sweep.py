"""A sweep as a process: it skips, resumes, says what is missing, and ends in a table."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.commands import start

from fgdemo.errors import UserError
from train.__main__ import main
from train.ledger import read_ledger
from train.sweep_file import fill_references, read_sweep

OPTIONS = {
    "data": "digits", "encoder": "test_resnet", "pretrained": False, "img_size": 32, "cache": True, "epochs": 1,
    "batch_size": 256, "workers": 0, "device": "cpu", "trackers": "none",
}  # fmt: skip
EVALUATE = {"split": "val", "device": "cpu", "workers": 0}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A sweep file of two rows and two seeds, with some keys changed."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(OPTIONS))

    def run(**changes: object) -> Path:
        rows = {"slow": {"config": "recipe.yaml"}, "fast": {"config": "recipe.yaml", "options": {"lr": 0.003}}}
        content = {
            "seeds": [0, 1],
            "evaluate": EVALUATE,
            "rows": rows,
            "figures": ["val/top1"],
            "compare": {"fast": "slow"},
            **changes,
        }
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}, sort_keys=False))
        return path

    return run


def words(file: Path, *more: str) -> list[str]:
    folder = file.parent
    common = ["--work", str(folder / "work"), "--ledger", str(folder / "ledger.jsonl"), "--threads", "1"]
    return ["sweep", str(file), *common, *more]


def sweep(file: Path, *more: str) -> int:
    """The command in this process; the rows run in processes of their own."""
    return main(words(file, *more))


def test_killed_at_once_and_stopped_in_time(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL to the sweep ends its trainer too; the next call resumes the row under way."""
    file = write(rows={"long": {"config": "recipe.yaml", "options": {"epochs": 12}}}, seeds=[0], compare=None)
    process = start(*words(file))
    folder = tmp_path / "work" / "small"
    deadline = time.monotonic() + 120
    while not list(folder.glob("long-0-*/state/step_*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = next(path for path in folder.iterdir() if path.is_dir())
    while not _free(run / ".lock"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] < 12
    assert not (tmp_path / "ledger.jsonl").exists()

    assert sweep(file, "--minutes", "0.02") == 0
    out = capsys.readouterr().out
    assert "its state is saved" in out
    assert "Not run yet: long." in out

    assert sweep(file) == 0
    assert "resumed from" in run.with_suffix(".log").read_text()
    assert len(read_ledger(tmp_path / "ledger.jsonl")) == 1
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "val/top1" in row] == list(range(1, 13))


def _free(lock: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def test_rows_run_once_fail_alone_and_start_from_others(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {
        "bad": {"config": "recipe.yaml", "options": {"lr": -1}},
        "trunk": {"config": "recipe.yaml"},
        "arm": {
            "config": "recipe.yaml",
            "options": {"encoder_weights": "${trunk}/checkpoint"},
            "evaluate": {"out": "${run}/evaluation"},
        },
    }
    file = write(rows=rows, seeds=[0], compare={"arm": "trunk"})
    ledger = tmp_path / "ledger.jsonl"
    # what a row starts from has to be there
    assert sweep(file, "--only", "arm") == 2
    said = capsys.readouterr().err
    assert "starts from row trunk, which has not been run with seed 0" in said
    assert "with --only trunk." in said
    assert sweep(file, "--only", "trunk") == 0
    assert "Not run yet: bad, arm." in capsys.readouterr().out
    (trunk,) = read_ledger(ledger)
    assert (trunk.row, trunk.seed, trunk.status, trunk.options) == ("trunk", 0, "done", OPTIONS)
    assert trunk.outcome("val/top1").mean() == pytest.approx(trunk.figures["val/top1"], abs=1e-6)
    assert len(trunk.outcome("val/top1")) == 270
    assert str(tmp_path) not in ledger.read_text()

    # the rest: a row that fails does not keep the others from running, one that is done does not run again, but for
    # its training where its run is gone
    _, trunk_row, arm_row = read_sweep(file).rows
    work = tmp_path / "work" / "small"
    trunk_run, arm_run = (work / f"{row.name}-0-{row.training}" for row in (trunk_row, arm_row))
    weights = (trunk_run / "checkpoint" / "model.safetensors").read_bytes()
    shutil.rmtree(trunk_run)
    assert sweep(file) == 2
    said = capsys.readouterr()
    assert said.out.count("trunk, seed 0: in the ledger, but its run is gone: trained again") == 1
    assert (trunk_run / "checkpoint" / "model.safetensors").read_bytes() == weights
    assert "bad with seed 0" in said.err
    assert "Not run yet: bad." in said.out
    bad, arm = read_ledger(ledger)[1:]
    assert [(e.row, e.status) for e in (bad, arm)] == [("bad", "failed"), ("arm", "done")]
    assert "--lr" in bad.about["reason"]
    assert arm.options["encoder_weights"] == "${trunk}/checkpoint"
    saved = yaml.safe_load((arm_run / "options.yaml").read_text())
    assert saved["encoder_weights"] == str(trunk_run / "checkpoint")
    header, line = (
        next(t for t in said.out.splitlines() if start in t) for start in ("difference in", "| arm | trunk")
    )
    assert "(1 seed)" in line
    assert "over seeds and pictures" in header
    assert " to " in line.split("|")[5]

    # with --again a row that is done is trained once more, which this launcher cannot do
    assert sweep(file, "--only", "trunk", "--again", "--launcher", "false") == 2
    assert read_ledger(ledger)[-1].status == "failed"
    shutil.rmtree(trunk_run)
    assert sweep(file, "--only", "arm", "--again", "--launcher", "false") == 2
    failed = read_ledger(ledger)[-1]
    assert (failed.row, failed.status) == ("arm", "failed")
    assert failed.about["reason"].startswith("trunk with seed 0, from which it starts: ")
    # another evaluation needs no new training, nor what the row starts from
    trained = (arm_run / "run.json").stat().st_mtime_ns
    file = write(rows=rows, seeds=[0], compare=None, evaluate={**EVALUATE, "knn": 3})
    assert sweep(file, "--only", "arm") == 0
    assert (arm_run / "run.json").stat().st_mtime_ns == trained
    assert not trunk_run.exists()
    assert "val/knn/top1" in read_ledger(ledger)[-1].figures


def test_table_alone_and_a_launcher(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write()
    assert sweep(file, "--table") == 0
    assert "Not run yet: slow, fast." in capsys.readouterr().out
    assert not (tmp_path / "work").exists()
    assert sweep(file, "--only", "slow", "--launcher", "false") == 2
    assert "slow with seed 0" in capsys.readouterr().err


def test_every_row_gets_its_first_seed_before_any_gets_the_second(write: Callable[..., Path], tmp_path: Path) -> None:
    assert sweep(write(), "--launcher", "false") == 2
    tried = [(entry.row, entry.seed) for entry in read_ledger(tmp_path / "ledger.jsonl")]
    assert tried == [("slow", 0), ("fast", 0), ("slow", 1), ("fast", 1)]


def test_data_roots_reach_the_commands(write: Callable[..., Path], tmp_path: Path) -> None:
    rows = {"flowers": {"options": {**OPTIONS, "data": "flowers102"}}}
    file = write(rows=rows, seeds=[0], compare=None)
    assert sweep(file, "--data_roots", json.dumps({"flowers102": str(tmp_path / "not there")})) == 2
    assert "not there" in read_ledger(tmp_path / "ledger.jsonl")[0].about["reason"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": None}, "no seeds"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"rows": {"a": {"method": "classifi"}}, "compare": None}, "unknown method 'classifi'"),
        ({"rows": {"a": {"lr": 1}}, "compare": None}, "unknown key 'lr'"),
        ({"rows": {"a": {"config": "none.yaml"}}, "compare": None}, "none.yaml cannot be read"),
        ({"rows": {"a": {"seeds": ["x"]}}, "compare": None}, "whole numbers"),
        ({"rows": {"a": {"options": {"encoder_weights": "${b}"}}, "b": {}}, "compare": None}, "no row above it"),
        ({"rows": {"run": {}}, "compare": None}, "no row may be called run"),
        ({"compare": {"slow": "none"}}, "compares none"),
    ],
)
def test_refusals(write: Callable[..., Path], changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_sweep(write(**changes))


def test_bad_files_and_rows_by_the_command(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2
    (tmp_path / "broken.yaml").write_text("rows: [")
    assert main(["sweep", str(tmp_path / "broken.yaml")]) == 2
    assert main(words(write(), "--only", "middle")) == 2
    said = capsys.readouterr().err
    assert "none.yaml cannot be read" in said
    assert "broken.yaml is not valid YAML" in said
    assert "--only middle is none of the rows: slow, fast" in said


def test_settings_follow_what_decides_the_result(write: Callable[..., Path], tmp_path: Path) -> None:
    slow, fast = read_sweep(write()).rows
    assert slow.setting != fast.setting
    again = read_sweep(write(evaluate={**EVALUATE, "knn": 3})).rows[0]
    assert (again.training, again.setting == slow.setting) == (slow.training, False)
    more_workers = {"slow": {"options": {**OPTIONS, "workers": 1}}}
    assert read_sweep(write(rows=more_workers, compare=None)).rows[0].setting == slow.setting
    assert slow.options["epochs"] == 1
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**OPTIONS, "epochs": 2}))
    assert read_sweep(write()).rows[0].setting != slow.setting


def test_settings_follow_the_rows_they_start_from(write: Callable[..., Path]) -> None:
    def setting(lr: float, evaluate: str) -> str:
        rows = {
            "trunk": {"options": {**OPTIONS, "lr": lr}},
            "arm": {"options": {**OPTIONS, "encoder_weights": "${trunk}/checkpoint"}, "evaluate": {"out": evaluate}},
        }
        return read_sweep(write(rows=rows, compare=None)).row("arm").setting

    assert setting(0.1, "${run}/a") == setting(0.1, "${run}/a")
    assert len({setting(0.1, "${run}/a"), setting(0.2, "${run}/a"), setting(0.1, "${trunk}/a")}) == 3


def test_a_row_with_fewer_seeds_is_referred_to_in_turn(write: Callable[..., Path]) -> None:
    rows = {"trunk": {"options": OPTIONS, "seeds": [5, 7]}, "arm": {"options": OPTIONS}}
    sweep = read_sweep(write(rows=rows, compare=None, seeds=[0, 1, 2, 5, 7]))
    assert [sweep.seed_of("trunk", seed) for seed in sweep.row("arm").seeds] == [5, 7, 5, 5, 7]
    assert [sweep.seed_of("arm", seed) for seed in (0, 7)] == [0, 7]


def test_references_are_filled_inside_texts() -> None:
    folders = {"a": Path("runs/a"), "run": Path("runs/b")}
    filled = fill_references({"x": "${a}/checkpoint,${run}", "n": 3}, folders)
    assert filled == {"x": "runs/a/checkpoint,runs/b", "n": 3}
