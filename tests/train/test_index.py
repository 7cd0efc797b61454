"""`index`: from a folder of pictures to a checkpoint that the library and the app open, without training."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file, save_file
from support.commands import ROOT, finish, start

import fgdemo
import train.checkpoint_parts
from fgdemo.__main__ import main as predict
from fgdemo.checkpoint import Checkpoint, read_checkpoint
from fgdemo.gallery import Gallery
from fgdemo.models import build_network, pretrained
from fgdemo.recluster import recluster
from fgdemo.ui.session import App
from train.__main__ import main
from train.metrics import knn_predict

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 40), "red": (220, 30, 30)}
PLAIN = ["--device", "cpu", "--workers", "0", "--threads", "1"]
QUICK = ["--encoder", "test_resnet", "--no-pretrained", "--img-size", "32", *PLAIN]


def draw(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    """A noisy picture around one colour."""
    noise = np.random.default_rng(seed).integers(-30, 31, (24, 32, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


def fill(folder: Path, each: int = 8, first: int = 0) -> Path:
    for name, colour in COLOURS.items():
        for i in range(first, first + each):
            draw(folder / name / f"{i}.png", colour, i)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class folders of eight pictures."""
    return fill(tmp_path_factory.mktemp("source") / "photos")


@pytest.fixture
def index(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Run the command in this process; returns what it wrote."""

    def run(*words: str, name: str = "made", quick: bool = True) -> Checkpoint:
        AcceleratorState._reset_state(True)
        assert main(["index", *(QUICK if quick else PLAIN), *words, "--out", str(tmp_path / name)]) == 0
        return read_checkpoint(tmp_path / name)

    return run


def ours(checkpoint: Checkpoint) -> dict[str, Any]:
    return checkpoint.config["fgdemo"]


def sizes(checkpoint: Checkpoint) -> list[int]:
    """Subclasses of each class."""
    return [entry["k"] for entry in checkpoint.subclasses["classes"]]


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
