"""`evaluate --discovery` by the command line, on digits trained as even and odd."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from train.__main__ import main
from train.evaluation.outcomes import unpack


@pytest.fixture(scope="module")
def parity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on coarse labels that kept its epochs."""
    from support.commands import SMALL

    folder = tmp_path_factory.mktemp("parity") / "run"
    AcceleratorState._reset_state(True)
    argv = ["classify", *SMALL, "--labels", "coarse", "--snapshot-every", "1", "--output", str(folder)]
    assert main(argv) == 0
    return folder


@pytest.fixture
def evaluate(parity: Path, tmp_path: Path) -> Callable[..., dict]:
    def run(*options: str, target: Path = parity, split: str = "test", code: int = 0) -> dict:
        AcceleratorState._reset_state(True)
        out = tmp_path / "out"
        argv = ["evaluate", str(target), "--discovery", "--split", split, "--out", str(out), "--device", "cpu"]
        assert main([*argv, "--workers", "0", "--threads", "1", *options]) == code
        path = out / f"{split}.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    return run


def figure(result: dict, side: str, name: str, k: str = "oracle") -> dict:
    return next(row for row in result["discovery"][side] if (row["name"], row["k"]) == (name, k))


def test_table_of_controls(evaluate: Callable[..., dict], parity: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate("--controls", str(parity))
    found = result["discovery"]
    assert (found["scored_classes"], found["fine_classes"], found["pictures"]) == (2, 10, 270)
    names = {row["name"] for row in found["controls"]}
    assert names == {
        "raw pixels", "raw pixels, Ward", "colour histogram", "untrained encoder", "chance, same sizes",
        "classify, epoch 1", "classify, epoch 2",
    }  # fmt: skip
    assert {row["name"] for row in found["ours"]} == {"k-means on its embedding", "subclasses of the checkpoint"}
    # pixels of digits divide well, chance not at all; the checkpoint's network is that of one of the kept epochs
    assert figure(result, "controls", "raw pixels")["ami"] > 0.6
    assert abs(figure(result, "controls", "chance, same sizes")["ami"]) < 0.02
    own = figure(result, "ours", "k-means on its embedding")["ami"]
    kept = [figure(result, "controls", f"classify, epoch {epoch}")["ami"] for epoch in (1, 2)]
    assert min(abs(own - ami) for ami in kept) < 0.005
    assert abs(kept[0] - kept[1]) > 0.005
    best = found["against_best_control"]["oracle"]
    assert best["control_ami"] == max(row["ami"] for row in found["controls"] if row["k"] == "oracle")
    assert best["low"] < best["difference"] < best["high"]
    assert len(unpack(result["outcomes"]["discovery/oracle/ami"])) == 200
    table = capsys.readouterr().out
    assert "10 fine classes inside 2 of 2 coarse ones" in table
    assert f"{best['difference']:+.3f} against the best control" in table


def test_options_change_the_figures(evaluate: Callable[..., dict]) -> None:
    plain = evaluate()["discovery"]
    assert "untrained encoder" in {row["name"] for row in plain["controls"]}
    assert "classify, epoch 1" not in {row["name"] for row in plain["controls"]}
    other = evaluate("--max-k", "3", "--choose-k", "bic", split="val")["discovery"]
    assert other["k"]["chosen"] == [3, 3] != plain["k"]["chosen"]
    assert other["k"]["criterion"] == "bic"
    oracle = [next(row["ami"] for row in found["ours"] if row["k"] == "oracle") for found in (plain, other)]
    assert oracle[0] != oracle[1]


def test_refusals(
    evaluate: Callable[..., dict], train: Callable[..., Path], parity: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = train("--epochs", "1", name="fine", export=True)
    evaluate(target=fine, code=2)
    assert "--labels coarse" in capsys.readouterr().err
    evaluate("--controls", str(fine), code=2)
    assert "--snapshot-every" in capsys.readouterr().err
    evaluate("--controls", "nowhere", code=2)
    assert "nowhere" in capsys.readouterr().err


def test_results_of_several_calls_stand_together(parity: Path, tmp_path: Path) -> None:
    def call(*options: str) -> dict:
        AcceleratorState._reset_state(True)
        out = ["--out", str(tmp_path), "--device", "cpu", "--workers", "0", "--threads", "1"]
        assert main(["evaluate", str(parity), *out, *options]) == 0
        return json.loads((tmp_path / "test.json").read_text())

    first = call("--discovery")
    second = call("--knn", "5")
    assert second["discovery"] == first["discovery"]
    assert set(second["outcomes"]) == set(first["outcomes"]) | {"knn"}
    # of another network nothing is kept
    path = tmp_path / "test.json"
    path.write_text(json.dumps(second | {"sha256": {"model.safetensors": "0" * 64}}))
    assert "discovery" not in call()
