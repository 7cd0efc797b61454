"""A run that was killed and resumed ends like one that never was: to the last bit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.commands import SMALL, finish, start
from support.runs import assert_equal_runs

from fgdemo.models import Network
from train.methods import Classify
from train.optim import OptimizerPlan
from train.options import OptimOptions
from train.state import list_states, load_state
from train.tracking import read_rows

# Dropout, mixing and augmentation all draw; states fall inside epochs; two steps an update.
DRAWS = [
    *("--epochs", "3", "--batch-size", "64", "--accumulate", "2", "--checkpoint-every", "2", "--log-every", "3"),
    *("--encoder-args", '{"drop_rate": 0.3}', "--mixup", "0.2", "--re-prob", "0.3", "--ema", "0.9"),
    *("--clip-grad", "1", "--warmup-epochs", "0.5", "--export", "false"),
]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_sigkill_at_any_moment(tmp_path: Path, train: Callable[..., Path], workers: str) -> None:
    whole = train(*DRAWS, name="whole")
    random_states = (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state())
    broken = tmp_path / "broken"
    argv = ["classify", *SMALL, *DRAWS, "--workers", workers, "--output", str(broken)]
    moments = random.Random(workers)
    resumptions = 0
    for _ in range(3):
        resumptions += bool(list_states(broken / "state"))
        process = start(*argv, "--resume" if list_states(broken / "state") else "--overwrite")
        before = len(read_rows(broken / "metrics.jsonl"))
        deadline = time.monotonic() + 120
        while len(read_rows(broken / "metrics.jsonl")) <= before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.4))
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)
    assert resumptions
    resumed = train(*DRAWS, "--workers", workers, "--resume", name="broken")
    assert_equal_runs(whole, resumed)
    assert random.getstate() == random_states[0]
    assert np.random.get_state()[1].tobytes() == random_states[1]
    assert torch.equal(torch.get_rng_state(), random_states[2])


def test_sigterm_saves_and_says_so(tmp_path: Path, train: Callable[..., Path]) -> None:
    folder = tmp_path / "run"
    process = start("classify", *SMALL, *DRAWS, "--epochs", "200", "--checkpoint-every", "0", "--output", str(folder))
    while not read_rows(folder / "metrics.jsonl") and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 128 + signal.SIGTERM
    assert "--resume" in err
    assert "Traceback" not in err
    step = load_state(list_states(folder / "state")[-1]).step
    assert step >= read_rows(folder / "metrics.jsonl")[-1]["step"]


def test_a_damaged_state_is_refused_and_the_one_before_used_when_told(
    train: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(name="run")
    whole = train(name="whole")
    older, newest = list_states(folder / "state")
    file = newest / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    train("--resume", name="run", code=2)
    said = capsys.readouterr().err
    assert "model.safetensors" in said
    assert "--resume" in said
    train("--resume", str(older), name="run")
    assert_equal_runs(whole, folder)


def test_other_options_are_refused(train: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    train("--epochs", "1")
    train("--epochs", "1", "--resume", "--lr", "0.5", code=2)
    said = capsys.readouterr().err
    assert "lr" in said
    assert "0.5" in said


def test_a_folder_with_a_run_is_not_overwritten(train: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = train("--epochs", "1")
    before = (folder / "metrics.jsonl").read_text()
    train("--epochs", "1", code=2)
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "metrics.jsonl").read_text() == before
    train("--epochs", "1", "--seed", "1", "--overwrite")
    assert (folder / "metrics.jsonl").read_text() != before


def test_a_method_with_two_optimisers_goes_on_too(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = train(name="plain")

    def optimizers(self: Classify, network: Network, options: OptimOptions) -> dict[str, OptimizerPlan]:
        head = set(network.encoder.net.fc.parameters())
        body = [p for p in network.parameters() if p not in head]
        plan = {"body": (body, options), "head": (list(head), replace(options, opt="sgd", lr=0.5, sched="constant"))}
        return {
            name: OptimizerPlan([{"params": parameters, "lr_scale": 1.0, "weight_decay": 0.0}], own)
            for name, (parameters, own) in plan.items()
        }

    monkeypatch.setattr(Classify, "optimizers", optimizers)
    whole, broken = train(name="whole"), train(name="broken")
    older, newest = list_states(broken / "state")
    stems = {"optimizer-body", "optimizer-head"}
    assert stems <= load_state(newest).tensors.keys()
    train("--resume", str(older), name="broken")
    assert_equal_runs(whole, broken)
    weights = [load_state(list_states(run / "state")[-1]).tensors["model"] for run in (plain, whole)]
    assert not torch.equal(weights[0]["encoder.net.fc.weight"], weights[1]["encoder.net.fc.weight"])


def test_resume_without_a_state(train: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    train("--resume", code=2)
    assert "no saved state" in capsys.readouterr().err
