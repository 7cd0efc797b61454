"""Spellings of options and refusals, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from train.cli import build_parser, dump_yaml, normalise_argv, split_namespace
from train.methods.mixing import MixingOptions
from train.options import GROUPS, AugmentOptions, EncoderOptions, RunOptions

ALL = (*GROUPS, MixingOptions)


def parse(*argv: str) -> list[object]:
    parser = build_parser("test", "", ALL)
    return split_namespace(parser.parse_args(normalise_argv(list(argv), ALL)), ALL)


@pytest.mark.parametrize(
    ("spelling", "size"),
    [
        (["--img-size", "96"], 96),
        (["--img_size", "96"], 96),
        (["--img-size=96"], 96),
        (["--img-size", "96", "128"], (96, 128)),
        (["--img-size", "[96,128]"], (96, 128)),
    ],
)
def test_sizes(spelling: list[str], size: object) -> None:
    encoder = parse(*spelling)[2]
    assert isinstance(encoder, EncoderOptions)
    assert encoder.img_size == size


@pytest.mark.parametrize(
    "spelling", [["--no-pretrained"], ["--no_pretrained"], ["--pretrained", "false"], ["--pretrained=false"]]
)
def test_switches_off(spelling: list[str]) -> None:
    assert parse(*spelling, "--epochs", "3")[2].pretrained is False


def test_bare_switches() -> None:
    _, _, encoder, _, run, _ = parse("--freeze", "--resume", "--seed", "5")
    assert isinstance(run, RunOptions)
    assert encoder.freeze is True
    assert (run.resume, run.seed) == ("latest", 5)
    assert parse("--resume", "runs/a/state/step_000000001")[4].resume == "runs/a/state/step_000000001"


def test_negative_numbers_and_pairs() -> None:
    augment = parse("--crop-scale", "0.5", "0.9", "--color-jitter", "0")[1]
    assert isinstance(augment, AugmentOptions)
    assert (augment.crop_scale, augment.color_jitter) == ((0.5, 0.9), 0)


def test_yaml_round_trip_and_precedence(tmp_path: Path) -> None:
    parser = build_parser("test", "", ALL)
    argv = normalise_argv(["--encoder-args", '{"depth": 2}', "--crop-scale", "0.5", "1", "--no-pretrained"], ALL)
    values = parser.parse_args(argv)
    file = tmp_path / "options.yaml"
    file.write_text(dump_yaml(parser, values))
    again = parser.parse_args(["--config", str(file), "--epochs", "7"])
    assert again.epochs == 7
    for key, value in values.as_dict().items():
        if key not in ("config", "epochs"):
            assert getattr(again, key) == value, key


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--nonsense", "1"], "nonsense"),
        (["--lr", "fast"], "lr"),
        (["--sched", "zigzag"], "sched"),
        (["--epochs", "2.5"], "epochs"),
    ],
)
def test_refusals(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*argv)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_unknown_keys_in_a_file_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("lerning_rate: 1\n")
    with pytest.raises(SystemExit):
        parse("--config", str(tmp_path / "bad.yaml"))
    assert "lerning_rate" in capsys.readouterr().err
