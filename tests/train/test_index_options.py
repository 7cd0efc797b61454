"""`index`: every option does something, and what cannot be is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from support.coloured_photos import COLOURS, PLAIN, QUICK, draw, ours, sizes

import train.checkpoint_parts
from fgdemo.gallery import Gallery
from fgdemo.models import build_network, pretrained
from train.__main__ import main


def test_choices_of_the_votes(photos: Path, index: Callable) -> None:
    chosen = ours(index(str(photos)))["network_args"]
    given = ours(index(str(photos), "--k", "3", "--temperature", "0.25", name="given"))
    assert given["network_args"] == {**chosen, "k": 3, "temperature": 0.25}
    assert given["options"]["k"] == 3
    assert chosen["k"] != 3


def test_choices_of_the_encoder(photos: Path, index: Callable, tmp_path: Path) -> None:
    plain = index(str(photos))
    torch.manual_seed(5)
    weights = build_network("timm", architecture="test_resnet", num_classes=4, img_size=32).weights()
    save_file(weights, tmp_path / "mine.safetensors")
    made = {
        "seed": index(str(photos), "--seed", "1", name="seed"),
        "args": index(str(photos), "--encoder-args", '{"act_layer": "gelu"}', name="args"),
        "size": index(str(photos), *QUICK[:3], "--img-size", "48", "64", name="size", quick=False),
        "file": index(str(photos), "--encoder-weights", str(tmp_path / "mine.safetensors"), name="file"),
        "vit": index(str(photos), "--encoder", "test_vit", "--no-pretrained", name="vit", quick=False),
    }
    assert ours(made["vit"])["network_args"]["architecture"] == "test_vit"
    assert ours(made["size"])["preprocessing"]["input_size"] == [3, 48, 64]
    assert ours(made["file"])["training"]["encoder_weights"] == "the file mine.safetensors"
    assert ours(made["file"])["options"]["encoder_weights"] == "mine.safetensors"
    assert torch.equal(made["file"].weights()["conv1.0.weight"], weights["conv1.0.weight"])
    first = Gallery.from_checkpoint(plain).embeddings
    for other in made.values():
        found = Gallery.from_checkpoint(other).embeddings
        assert found.shape != first.shape or not np.array_equal(found, first)


def test_an_encoder_of_a_checkpoint(photos: Path, index: Callable, tmp_path: Path) -> None:
    source = index(str(photos), "--title", "First")
    made = index(str(photos), "--checkpoint", str(source.directory), name="second", quick=False)
    assert ours(made)["training"]["encoder_weights"] == "of the checkpoint First"
    assert ours(made)["preprocessing"] == ours(source)["preprocessing"]
    one, two = (Gallery.from_checkpoint(checkpoint).embeddings for checkpoint in (source, made))
    np.testing.assert_array_equal(one, two)
    assert ours(made)["options"]["checkpoint"] == "made"
    flat = index(str(photos), "--checkpoint", str(source.directory), "--no-labels", name="third", quick=False)
    np.testing.assert_array_equal(one, Gallery.from_checkpoint(flat).embeddings)


def test_the_usual_encoder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from train import index_source

    asked = {}

    def record(name: str, **arguments: Any) -> None:
        asked.update(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(index_source, "build_network", record)
    assert main(["index", str(photos), "--out", str(tmp_path / "made"), *PLAIN]) == 130
    assert (asked["architecture"], asked["img_size"], asked["pretrained"]) == ("vit_small_patch14_dinov2", 224, True)
    AcceleratorState._reset_state(True)
    assert main(["index", str(photos), "--encoder", "resnet18", "--out", str(tmp_path / "made"), *PLAIN]) == 130
    assert (asked["architecture"], asked["img_size"]) == ("resnet18", None)


def test_choices_of_the_gallery(photos: Path, index: Callable) -> None:
    small = index(
        str(photos), "--gallery-per-class", "5", "--thumbnails", "0", "--license", "mit", "--dtype", "float16"
    )
    gallery = Gallery.from_checkpoint(small)
    assert np.bincount(gallery.class_id).tolist() == [5, 5, 5]
    assert gallery.thumbnail(0) is None
    assert "license: mit" in small.card
    stored = load_file(small.directory / "model.safetensors")
    assert stored["fc.memory"].dtype == torch.float16
    assert stored["fc.memory"].shape == (15, gallery.dim)
    other = index(str(photos), "--gallery-per-class", "5", "--seed", "3", "--thumbnails", "16", name="other")
    seen = Gallery.from_checkpoint(other)
    assert max(seen.thumbnail(0).size) == 16
    assert seen.keys != gallery.keys
    assert load_file(other.directory / "model.safetensors")["fc.memory"].dtype == torch.float32


def test_how_the_number_of_subclasses_is_chosen(tmp_path: Path, index: Callable) -> None:
    root = tmp_path / "pairs"
    for seed in range(8):
        draw(root / "warm" / f"red-{seed}.png", COLOURS["red"], seed)
        draw(root / "warm" / f"green-{seed}.png", COLOURS["green"], seed)
        draw(root / "cold" / f"{seed}.png", COLOURS["blue"], seed)
    silhouette = index(str(root))
    assert silhouette.subclasses["classes"][1]["k"] == 2
    bic = index(str(root), "--choose-k", "bic", name="bic")
    assert {entry["chosen_by"] for entry in bic.subclasses["classes"]} == {"bic"}
    assert {entry["chosen_by"] for entry in silhouette.subclasses["classes"]} == {"silhouette"}
    assert sizes(index(str(root), "--max-k", "1", name="one")) == [1, 1]


def test_levels_of_a_hierarchy(tmp_path: Path, index: Callable) -> None:
    root = tmp_path / "levels"
    for seed in range(4):
        for fine, coarse in (("red", "warm"), ("green", "warm"), ("blue", "cold")):
            draw(root / coarse / fine / f"{seed}.png", COLOURS[fine], seed)
    fine, coarse = index(str(root)), index(str(root), "--labels", "coarse", name="coarse")
    assert fine.config["label_names"] == ["blue", "green", "red"]
    assert ours(fine)["superclass_names"] == ["cold", "warm", "warm"]
    assert coarse.config["label_names"] == ["cold", "warm"]
    assert index(str(root), "--labels", "fine", name="fine").config["label_names"] == fine.config["label_names"]


def test_how_pictures_are_read(photos: Path, index: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = train.checkpoint_parts.run_split, []

    def record(*arguments: Any, **options: Any) -> Any:
        asked.append((options["batch_size"], options["workers"], torch.get_num_threads(), options["full_precision"]))
        return real(*arguments, **options)

    monkeypatch.setattr(train.checkpoint_parts, "run_split", record)
    index(str(photos), "--batch-size", "5", "--workers", "1", "--threads", "2")
    assert asked == [(5, 1, 2, True)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give the folder of your pictures, or --data NAME"),
        (["{photos}", "--data", "digits"], "one of the two"),
        (["{photos}", "--data-root", "x"], "--data-root belongs to --data"),
        (["{photos}/nowhere"], "is not a folder"),
        (["{empty}"], "No pictures found"),
        (["{empty}", "--no-labels"], "No pictures found"),
        (["{photos}/red"], "give --no-labels"),
        (["{one}", "--no-labels"], "at least two pictures"),
        (["{photos}", "--no-labels", "--clusters", "25"], "--clusters is 25, but there are 24 pictures"),
        (["{photos}", "--k", "25"], "--k is 25, but there are 24 pictures"),
        (["{photos}", "--clusters", "2"], "--clusters is for --no-labels"),
        (["{photos}", "--no-labels", "--k", "2"], "without labels there are none"),
        (["{photos}", "--no-labels", "--clusters", "0"], "--clusters is 0; it is at least 1"),
        (["{photos}", "--k", "0"], "--k is 0; it is at least 1"),
        (["{photos}", "--temperature", "0"], "--temperature is 0"),
        (["{photos}", "--batch-size", "0"], "--batch-size is 0"),
        (["{photos}", "--gallery-per-class", "-1"], "--gallery-per-class is -1"),
        (["{photos}", "--encoder", "resnet19"], "Unknown encoder 'resnet19'"),
        (["{photos}", "--checkpoint", "{photos}"], "--checkpoint brings its own encoder"),
        (["{photos}", "--out", "{photos}/red/0.png/made"], "is no folder you may write to"),
    ],
)
def test_refusals(
    words: list[str], said: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    draw(tmp_path / "one" / "a.png", COLOURS["red"], 0)
    places = {"photos": photos, "empty": tmp_path / "empty", "one": tmp_path / "one"}
    out = [] if "--out" in words else ["--out", str(tmp_path / "made")]
    defaults = [] if "--encoder" in words else ["--encoder", "test_resnet"]
    size = [] if "--encoder" in words else ["--img-size", "32"]
    argv = ["index", *(word.format(**places) for word in words), *defaults, *size, "--no-pretrained", *out, *PLAIN]
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message
    assert not (tmp_path / "made").exists()


def test_pretrained_weights_off_line(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(pretrained, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(pretrained, "try_to_load_from_cache", lambda *_: None)
    assert main(["index", str(photos), "--out", str(tmp_path / "made"), *PLAIN]) == 2
    message = capsys.readouterr().err
    assert "vit_small_patch14_dinov2" in message
    assert "--encoder-weights FILE" in message
    assert "--no-pretrained" in message
