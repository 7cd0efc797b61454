"""Several processes: the shipped configurations, equality with one process, no orphans."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from support.commands import CONFIGS, LAUNCH, SMALL, TWO, finish, start

from train.state import list_states, load_state
from train.tracking import read_rows


@pytest.mark.parametrize("name", ["cpu2", "single_gpu", "multi_gpu", "multi_node"])
def test_configurations_parse(name: str) -> None:
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert config.num_processes == {"cpu2": 2, "single_gpu": 1, "multi_gpu": 8, "multi_node": 16}[name]
    assert config.num_machines == (2 if name == "multi_node" else 1)


@pytest.fixture(scope="module")
def two_process_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("two") / "run"
    options = ("--batch-size", "128", "--epochs", "2", "--output", str(folder))
    code, out, err = finish(start("classify", *SMALL, *options, launcher=TWO))
    assert code == 0, err
    return folder, out


def test_two_processes_really_start(two_process_run: tuple[Path, str]) -> None:
    folder, out = two_process_run
    assert "on 2 x cpu" in out
    assert load_state(list_states(folder / "state")[-1]).info["identity"]["processes"] == 2


def test_two_processes_follow_one(two_process_run: tuple[Path, str], tmp_path: Path) -> None:
    """Half the batch on each of two processes meets the same global batches; a network without batch statistics
    differs only by the order of sums."""
    vit = ["--encoder", "test_vit", "--encoder-args", '{"dynamic_img_size": true}', "--opt", "sgd", "--epochs", "1"]
    logs = []
    for name, launcher, batch in (("one", (sys.executable, "-m", "train"), "256"), ("two", TWO, "128")):
        options = (*vit, "--batch-size", batch, "--log-every", "1", "--export", "false")
        code, _, err = finish(start("classify", *SMALL, *options, "--output", str(tmp_path / name), launcher=launcher))
        assert code == 0, err
        logs.append(read_rows(tmp_path / name / "metrics.jsonl"))
    one, two = logs
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for a, b in zip(one, two, strict=True):
        for key in a.keys() - {"seconds"}:
            assert a[key] == pytest.approx(b[key], rel=1e-4, abs=1e-5), key


def test_evaluation_counts_every_picture_once(two_process_run: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = two_process_run
    results = {}
    for name, launcher in (("one", (sys.executable, "-m", "train")), ("two", TWO)):
        out = tmp_path / name
        options = ("--device", "cpu", "--threads", "1", "--workers", "0", "--knn", "5", "--out", str(out))
        code, _, err = finish(start("evaluate", str(folder), *options, launcher=launcher))
        assert code == 0, err
        results[name] = json.loads((out / "test.json").read_text())
        confusion = (out / "test-confusion.csv").read_text().splitlines()[1:]
        assert sum(int(cell) for line in confusion for cell in line.split(",")[1:]) == 270
    one, two = results["one"], results["two"]
    assert one["metrics"]["n"] == two["metrics"]["n"] == 270
    assert one["metrics"] == pytest.approx(two["metrics"], rel=1e-5)
    assert one["knn"] == pytest.approx(two["knn"])


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_to_the_launcher_leaves_no_orphan(tmp_path: Path, processes: int) -> None:
    folder = tmp_path / "run"
    launcher = TWO if processes == 2 else (*LAUNCH, "--num_processes", "1", "-m", "train")
    options = ("--epochs", "500", "--batch-size", "64", "--log-every", "2", "--workers", "1", "--output", str(folder))
    process = start("classify", *SMALL, *options, launcher=launcher)
    while not read_rows(folder / "metrics.jsonl") and process.poll() is None:
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= processes
    process.send_signal(signal.SIGTERM)
    code, _, _ = finish(process)
    assert code != 0
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert list_states(folder / "state"), "the last state was not saved"
