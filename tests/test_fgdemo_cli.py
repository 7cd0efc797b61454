from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdemo.__main__ import main

from .tiny_checkpoint import make_voting_network, picture, write_tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny(tmp_path_factory.mktemp("cli") / "tiny"))


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    for row in range(2):
        picture(row).save(tmp_path / f"{row}.png")
    return [str(tmp_path / f"{row}.png") for row in range(2)]


def test_predict_prints_classes_and_neighbours(checkpoint: str, images: list[str], capsys: pytest.CaptureFixture):
    assert main(["predict", *images, "--checkpoint", checkpoint, "--top", "2"]) == 0
    out = capsys.readouterr().out
    for row, name in enumerate(images):
        assert f"{name}\n" in out
        assert f"nearest drawn/{row:02d}.png" in out
    assert out.count("%") == 4


def test_predict_json_goes_on_after_a_bad_picture(
    checkpoint: str, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    (tmp_path / "bad.png").write_text("<html>")
    missing = str(tmp_path / "missing.png")
    asked = [images[0], str(tmp_path / "bad.png"), missing, images[1], images[0]]
    assert main(["predict", *asked, "--checkpoint", checkpoint, "--json"]) == 1
    captured = capsys.readouterr()
    results = json.loads(captured.out)
    assert [entry["image"] for entry in results] == asked
    assert ["error" in entry for entry in results] == [False, True, True, False, False]
    assert [len(entry["classes"]) for entry in results if "classes" in entry] == [3, 3, 3]
    sentences = captured.err.splitlines()
    assert len(sentences) == 2
    assert "bad.png" in sentences[0]
    assert "missing.png" in sentences[1]


def test_explain_writes_overlay_and_maps(checkpoint: str, images: list[str], tmp_path: Path):
    (tmp_path / "other").mkdir()
    picture(5, (40, 90)).save(tmp_path / "other" / "0.png")
    out = tmp_path / "deep" / "out"
    asked = [images[0], str(tmp_path / "other" / "0.png")]
    command = ["explain", *asked, "--checkpoint", checkpoint, "--out", str(out)]
    assert main(command) == 0
    assert sorted(os.listdir(out)) == ["0-2.json", "0-2.png", "0.json", "0.png"]
    with Image.open(out / "0-2.png") as drawn:
        assert drawn.size == (40, 90)
    document = json.loads((out / "0.json").read_text(encoding="utf-8"))
    assert document["image"] == images[0]
    assert document["explanation"]["kind"] == "votes"
    assert document["shown"]["what"] == "votes"
    assert np.array_equal(np.array(document["explanation"]["votes"]).sum(0), np.array(document["shown"]["map"]))

    first = (out / "0.png").read_bytes()
    assert main([*command, "--block", "1", "--head", "0", "--what", "attention"]) == 0
    document = json.loads((out / "0.json").read_text(encoding="utf-8"))
    assert (document["shown"]["block"], document["shown"]["head"]) == (1, 0)
    assert (out / "0.png").read_bytes() != first


def test_explain_a_network_that_votes(checkpoint: str, images: list[str], tmp_path: Path, capsys):
    voting = str(write_tiny(tmp_path / "voting", network=make_voting_network()))
    drawn = {}
    for name, words in {"all": ["scores"], "two": ["scores", "--scale", "2"], "pool": ["candidates"]}.items():
        out = tmp_path / name
        assert main(["explain", images[0], "--checkpoint", voting, "--out", str(out), "--what", *words]) == 0
        drawn[name] = (out / "0.png").read_bytes()
        document = json.loads((out / "0.json").read_text(encoding="utf-8"))
        assert document["shown"]["what"] == words[0]
    assert len(set(drawn.values())) == 3
    assert document["shown"]["candidates"] == document["explanation"]["candidates"]
    assert len(document["shown"]["candidates"]) == sum(document["explanation"]["quotas"]) > 0
    capsys.readouterr()
    words = ["explain", images[0], "--out", str(tmp_path / "no"), "--what", "candidates", "--checkpoint"]
    assert main([*words, checkpoint]) == 2
    assert "trained by voting" in capsys.readouterr().err
    assert main([*words, voting, "--head", "1"]) == 2
    assert "--head" in capsys.readouterr().err
    assert main(["explain", images[0], "--checkpoint", voting, "--out", "x", "--what", "scores", "--scale", "3"]) == 2
    assert "scale" in capsys.readouterr().err


def test_explain_with_a_bad_picture_or_option(checkpoint: str, images: list[str], tmp_path: Path, capsys):
    out = tmp_path / "out"
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    assert main(["explain", str(bad), images[1], "--checkpoint", checkpoint, "--out", str(out)]) == 1
    assert sorted(os.listdir(out)) == ["1.json", "1.png"]
    assert main(["explain", images[0], "--checkpoint", checkpoint, "--out", str(out), "--block", "99"]) == 2
    assert "block must be 0 to" in capsys.readouterr().err
    assert main(["explain", images[0], "--checkpoint", checkpoint, "--out", str(bad)]) == 2
    assert "bad.png cannot be made" in capsys.readouterr().err
    assert sorted(os.listdir(out)) == ["1.json", "1.png"]


def test_inspect_shows_figures_and_subclasses(checkpoint: str, capsys: pytest.CaptureFixture):
    assert main(["inspect", checkpoint]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["val", "top1", "0.5", "3"] in lines
    assert ["0", "apple", "food", "2", "kind", "3", "(3),", "kind", "8", "(3)"] in lines
    assert ["2", "sky", "air", "0"] in lines
    assert ["gallery", "9", "train,", "3", "val,", "0", "test"] in lines
    assert main(["inspect", checkpoint, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["config"]["label_names"] == ["apple", "moss", "sky"]
    assert document["gallery"] == {"train": 9, "val": 3, "test": 0}
    assert document["subclasses"]["next_id"] == 9


def test_names_cannot_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture):
    directory = write_tiny(tmp_path / "x", title="a\x1b[2Jb\nc")
    assert main(["inspect", str(directory)]) == 0
    assert capsys.readouterr().out.startswith("a [2Jb c\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["predict"],
        ["predict", "x.png", "--top", "0"],
        ["predict", "x.png", "--colour", "red"],
        ["explain", "x.png"],
        ["explain", "x.png", "--out", "o", "--block", "first"],
        ["explain", "x.png", "--out", "o", "--what", "guesses"],
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_missing_checkpoint_is_one_sentence(images: list[str], capsys: pytest.CaptureFixture):
    for command in (["predict", images[0], "--checkpoint"], ["inspect"]):
        assert main([*command, "nowhere/"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert "nowhere/ does not exist" in captured.err


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fgdemo", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_as_a_process(checkpoint: str, images: list[str], tmp_path: Path):
    good = run("predict", images[0], "--checkpoint", checkpoint, "--json", cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)[0]["neighbours"][0]["key"] == "drawn/00.png"
    unnamed = run("predict", images[0], cwd=tmp_path)
    assert unnamed.returncode == 2
    assert unnamed.stderr.startswith("Give --checkpoint")
    assert unnamed.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a POSIX feature")
def test_interrupt_is_quiet(tmp_path: Path):
    # A named pipe without a writer keeps the command waiting in the reading of its checkpoint's pictures.
    directory = write_tiny(tmp_path / "x")
    os.mkfifo(tmp_path / "pipe.png")
    process = subprocess.Popen(
        [sys.executable, "-m", "fgdemo", "predict", str(tmp_path / "pipe.png"), "--checkpoint", str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite in the background of a shell has Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    # Opening the pipe for writing returns once the command has opened it for reading.
    with open(tmp_path / "pipe.png", "wb"):
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == ("", "")
