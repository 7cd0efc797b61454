"""`index`: from a folder of pictures to a checkpoint that the library and the app open, without training."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from support.coloured_photos import COLOURS, PLAIN, QUICK, draw, fill, ours, sizes
from support.commands import ROOT, finish, start

import fgdemo
from fgdemo.__main__ import main as predict
from fgdemo.checkpoint import read_checkpoint
from fgdemo.gallery import Gallery
from fgdemo.recluster import recluster
from fgdemo.ui.session import App
from train.__main__ import main
from train.metrics import knn_predict


def test_a_folder_becomes_a_checkpoint(photos: Path, index: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    made = index(str(photos), "--title", "Colours")
    about = ours(made)
    assert made.config["label_names"] == ["blue", "green", "red"]
    assert (about["method"], about["network"], about["labels"], about["title"]) == (
        "index",
        "neighbours",
        "classes",
        "Colours",
    )
    training = about["training"]
    assert training["leave_one_out_top1"] == 1
    assert training["leave_one_out_n"] == training["samples"] == 24
    assert training["encoder_weights"] == "random, seed 0"
    assert about["metrics"] == []
    assert str(photos.parent) not in json.dumps(made.config)
    assert training["command"].endswith(
        "--encoder test_resnet --pretrained false --img-size 32 "
        "--title Colours --workers 0 --device cpu --threads 1 FOLDER"
    )
    out = capsys.readouterr().out
    assert "24 pictures of 3 classes" in out
    assert "leave-one-out: top-1 100.00 %" in out
    assert "Nothing was trained for it" in made.card
    assert "## How it was made" in made.card
    gallery = Gallery.from_checkpoint(made)
    assert sorted(gallery.keys) == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    assert gallery.thumbnail(0) is not None
    assert (gallery.subclass_id >= 0).all()


def test_its_pictures_are_known_again(photos: Path, index: Callable) -> None:
    made = index(str(photos))
    classifier = fgdemo.load(made.directory, device="cpu")
    gallery = classifier.gallery
    pictures = [photos / key for key in gallery.keys]
    for row, prediction in enumerate(classifier.predict(pictures)):
        first = prediction.classes[0]
        assert first.name == gallery.keys[row].split("/")[0]
        assert prediction.subclass.id == gallery.subclass_id[row]
        assert prediction.neighbours[0].row == row
        assert prediction.neighbours[0].distance == pytest.approx(0, abs=1e-3)
        assert not prediction.novelty.is_novel
    new = Image.new("RGB", (50, 40), (200, 50, 40))
    prediction = classifier.predict([new])[0]
    assert prediction.classes[0].name == "red"
    # The network's answer is the vote over the gallery that the evaluation uses.
    args = ours(made)["network_args"]
    shares = knn_predict(
        torch.from_numpy(classifier.embed([new])),
        torch.from_numpy(gallery.embeddings),
        torch.from_numpy(gallery.class_id).long(),
        3,
        args["k"],
        args["temperature"],
    )
    assert prediction.classes[0].probability == pytest.approx(float(shares[0, 2]), abs=1e-2)


def test_the_flag_comes_from_pictures_left_out(photos: Path, index: Callable) -> None:
    made = index(str(photos))
    novelty = ours(made)["novelty"]
    x = Gallery.from_checkpoint(made).embeddings.astype(np.float64)
    distances = 1 - x @ x.T
    np.fill_diagonal(distances, 2)
    assert novelty["n"] == 24
    assert novelty["threshold"] == pytest.approx(np.quantile(distances.min(1), 0.95), abs=1e-3)
    assert "own pictures, each left out in turn" in made.card


def test_folders_held_out_are_measured(tmp_path: Path, index: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "split"
    fill(root / "train")
    fill(root / "val", 4, 100)
    fill(root / "test", 3, 200)
    draw(root / "test" / "red" / "wrong.png", COLOURS["blue"], 300)
    made = index(str(root))
    figures = {(m["split"], m["name"]): (m["value"], m["n"]) for m in ours(made)["metrics"]}
    assert figures["val", "top1"] == (1, 12)
    assert figures["test", "top1"] == (pytest.approx(0.9), 10)
    assert "test: top-1 90.00 % of 10" in capsys.readouterr().out
    assert ours(made)["novelty"]["n"] == 12
    assert len(Gallery.from_checkpoint(made)) == 24
    AcceleratorState._reset_state(True)
    argv = ["evaluate", str(made.directory), "--data-root", str(root), "--out", str(tmp_path / "figures"), *PLAIN]
    assert main(argv) == 0
    measured = json.loads((tmp_path / "figures" / "test.json").read_text())["metrics"]
    for name in ("top1", "nll", "ece"):
        assert measured[name] == pytest.approx(figures["test", name][0], abs=1e-4)


def test_a_known_data_set(index: Callable) -> None:
    made = index("--data", "digits", "--gallery-per-class", "12", "--thumbnails", "0")
    assert made.config["label_names"] == [str(d) for d in range(10)]
    assert ours(made)["training"]["dataset"] == "digits"
    assert {m["split"] for m in ours(made)["metrics"]} == {"val"}
    gallery = Gallery.from_checkpoint(made)
    assert np.bincount(gallery.class_id).tolist() == [12] * 10
    assert len(made.weights()["fc.memory"]) == 120


def test_where_data_lie_and_checkpoints_go(
    photos: Path, index: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = index("--data", "imagefolder", "--data-root", str(photos))
    held_out = {m["n"] for m in ours(made)["metrics"]}
    assert held_out == {24 - len(Gallery.from_checkpoint(made))} != {0}
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(True)
    assert main(["index", str(photos), *QUICK]) == 0
    assert len(Gallery.from_checkpoint(read_checkpoint(tmp_path / "runs" / "index-photos"))) == 24


@pytest.mark.parametrize("flat", [False, True])
def test_without_labels_clusters_are_found(
    photos: Path, tmp_path: Path, index: Callable, flat: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    source = photos
    if flat:
        source = tmp_path / "flat"
        source.mkdir()
        for path in photos.rglob("*.png"):
            shutil.copy(path, source / f"{path.parent.name}-{path.name}")
    made = index(str(source), "--no-labels", "--clusters", "3")
    assert ours(made)["labels"] == "none"
    assert made.config["label_names"] == ["all pictures"]
    assert "leave_one_out_n" not in ours(made)["training"]
    assert ours(made)["training"]["labels"] == ours(made)["options"]["labels"] == "none"
    gallery = Gallery.from_checkpoint(made)
    assert sorted(m["name"] for m in gallery.members.values()) == ["1", "2", "3"]
    colour = np.array([key.replace("/", "-").split("-")[0] for key in gallery.keys])
    pairs = {(c, int(i)) for c, i in zip(colour, gallery.subclass_id, strict=True)}
    assert len(pairs) == 3, "each colour is one cluster"
    prediction = fgdemo.load(made.directory, device="cpu").predict([Image.new("RGB", (9, 9), COLOURS["green"])])[0]
    assert prediction.subclass.id == dict(pairs)["green"]
    assert prediction.classes[0].probability == pytest.approx(1)
    assert "Pictures without labels in 3 clusters." in made.card
    assert "pipeline_tag: image-feature-extraction" in made.card
    capsys.readouterr()
    assert predict(["predict", str(photos / "red" / "0.png"), "--checkpoint", str(made.directory)]) == 0
    said = capsys.readouterr().out
    assert '  cluster "' in said
    assert "%" not in said
    assert "all pictures" not in said
    assert main(["evaluate", str(made.directory), "--device", "cpu"]) == 2
    assert "no labels to compare with" in capsys.readouterr().err


def test_without_labels_dividing_anew_takes_all_pictures_together(
    photos: Path, index: Callable, tmp_path: Path
) -> None:
    made = index(str(photos), "--no-labels", "--clusters", "3")
    app = App([made.directory.parent], saved=tmp_path / "saved", device="cpu")
    before = app.classifier("made").gallery
    after = recluster(before, k=2).gallery
    assert len(after.centroid_ids) == 2
    # Three colours in two clusters: one of them holds pictures of two former clusters.
    owners = [set(before.subclass_id[after.subclass_id == i].tolist()) for i in after.centroid_ids]
    assert sorted(map(len, owners)) == [1, 2]
    kept = set(after.centroid_ids.tolist()) & set(before.centroid_ids.tolist())
    assert kept
    saved = app.classifier(app.save("made", after))
    assert [m["size"] for m in saved.gallery.members.values()] == [m["size"] for m in after.members.values()]
    assert saved.config["fgdemo"]["labels"] == "none"
    assert saved.predict([photos / "red" / "0.png"])[0].subclass.id in after.centroid_ids


def test_a_number_of_clusters_at_its_limit_is_said(
    photos: Path, index: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    made = index(str(photos), "--labels", "none", "--max-k", "3")
    assert sizes(made) == [3]
    assert "as many as --max-k allows" in capsys.readouterr().out
    assert sizes(index(str(photos), "--no-labels", "--max-k", "2", name="fewer")) == [2]


def test_pictures_that_cannot_be_read(tmp_path: Path, index: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    root = fill(tmp_path / "damaged", 4)
    (root / "red" / "broken.png").write_bytes(b"no picture")
    made = index(str(root))
    assert "red/broken.png" not in Gallery.from_checkpoint(made).keys
    assert len(Gallery.from_checkpoint(made)) == 12
    assert "1 pictures cannot be read" in capsys.readouterr().out
    AcceleratorState._reset_state(True)
    assert main(["index", str(root), "--strict", *QUICK, "--out", str(tmp_path / "strict")]) == 2
    assert "broken.png" in capsys.readouterr().err
    assert not (tmp_path / "strict").exists()


def test_small_classes(tmp_path: Path, index: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    root = fill(tmp_path / "few", 3)
    draw(root / "yellow" / "only.png", (240, 230, 20), 0)
    made = index(str(root))
    assert ours(made)["training"]["leave_one_out_n"] == 9
    assert "1 classes have one picture" in capsys.readouterr().out
    prediction = fgdemo.load(made.directory, device="cpu").predict([root / "yellow" / "only.png"])[0]
    assert prediction.neighbours[0].key == "yellow/only.png"
    shutil.rmtree(root / "green")
    shutil.rmtree(root / "blue")
    shutil.rmtree(root / "yellow")
    one = index(str(root), name="one")
    assert one.config["label_names"] == ["red"]
    assert "--no-labels finds clusters" in capsys.readouterr().out


def test_a_taken_name_gets_a_sibling(photos: Path, index: Callable) -> None:
    first = index(str(photos))
    index(str(photos))
    assert first.directory.with_name("made-v2").is_dir()


def test_two_processes_write_what_one_does(photos: Path, index: Callable, tmp_path: Path) -> None:
    config = ROOT / "train" / "recipes" / "accelerate" / "cpu2.yaml"
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "-m", "train")
    argv = ["index", str(photos), *QUICK, "--out", str(tmp_path / "two")]
    code, out, err = finish(start(*argv, launcher=launcher))
    assert code == 0, err
    assert out.count("24 pictures of 3 classes") == 1
    one, two = index(str(photos)), read_checkpoint(tmp_path / "two")
    assert ours(one)["network_args"] == ours(two)["network_args"]
    a, b = Gallery.from_checkpoint(one), Gallery.from_checkpoint(two)
    assert a.keys == b.keys
    np.testing.assert_allclose(a.embeddings, b.embeddings, atol=2e-3)
