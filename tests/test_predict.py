from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import fgdemo
from fgdemo.checkpoint.store import file_sha256
from fgdemo.data.transforms import crop_box
from fgdemo.errors import UserError
from fgdemo.predict import Classifier, load

from .tiny_checkpoint import CLASSES, make_network, picture, write_tiny


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load(write_tiny(tmp_path_factory.mktemp("vit") / "tiny"), device="cpu")


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load(write_tiny(tmp_path_factory.mktemp("cnn") / "tiny", "test_resnet", novelty=None), device="cpu")


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["vit", "cnn"])
def test_round_trip_is_bit_for_bit(name: str, request: pytest.FixtureRequest):
    classifier: Classifier = request.getfixturevalue(name)
    original = make_network({"vit": "test_vit", "cnn": "test_resnet"}[name])
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = original(images), classifier.network(images)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.embedding, expected.embedding)
    assert not classifier.network.training


def test_float16_checkpoint_runs_in_float32(tmp_path: Path):
    classifier = load(write_tiny(tmp_path / "half", dtype="float16"), device="cpu")
    assert {p.dtype for p in classifier.network.parameters()} == {torch.float32}
    expected = {k: v.half().float() for k, v in make_network("test_vit").weights().items()}
    assert all(torch.equal(value, expected[key]) for key, value in classifier.network.weights().items())


def test_timm_alone_loads_the_same_classifier(vit: Classifier):
    plain = timm.create_model(f"local-dir:{vit.checkpoint.directory}", pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(plain(images), vit.network(images).logits)
    assert plain.pretrained_cfg["label_names"] == list(CLASSES)
    data = timm.data.resolve_model_data_config(plain)
    assert tuple(data["mean"]) == vit.preprocessing.mean
    assert tuple(data["input_size"]) == vit.preprocessing.input_size


def test_prediction_of_a_gallery_picture(vit: Classifier):
    image = picture(4)
    prediction = vit.predict([image])[0]
    with torch.inference_mode():
        logits = vit.network(vit._transform(image)[None]).logits[0]
    order = logits.argsort(descending=True).tolist()
    assert [score.class_id for score in prediction.classes] == order
    assert [score.name for score in prediction.classes] == [CLASSES[c] for c in order]
    assert np.allclose([score.probability for score in prediction.classes], logits.softmax(0)[order], atol=1e-6)
    assert prediction.superclass == ("food", "plant", "air")[order[0]]
    first = prediction.neighbours[0]
    assert (first.row, first.key, first.class_name, first.subclass_id) == (4, "drawn/04.png", "moss", 5)
    assert first.distance == pytest.approx(0, abs=1e-3)
    assert len(prediction.neighbours) == 8
    assert all(neighbour.row < 9 for neighbour in prediction.neighbours)
    distances = [neighbour.distance for neighbour in prediction.neighbours]
    assert distances == sorted(distances)
    assert prediction.novelty == (first.distance, 0.5, False)
    assert prediction.box == crop_box(image.size, vit.preprocessing)
    assert prediction.explanation is None


def force_class(classifier: Classifier, class_id: int) -> torch.Tensor:
    """Make a class win whatever the picture; returns the bias to put back."""
    bias = classifier.network.encoder.net.get_classifier().bias
    before = bias.detach().clone()
    with torch.no_grad():
        bias[class_id] += 1e6
    return before


@pytest.mark.parametrize(("class_id", "ids"), [(0, {3, 8}), (1, {5}), (2, set())])
def test_subclass_lies_inside_the_predicted_class(vit: Classifier, class_id: int, ids: set[int]):
    before = force_class(vit, class_id)
    try:
        prediction = vit.predict([picture(7)], prototypes=2)[0]
    finally:
        with torch.no_grad():
            vit.network.encoder.net.get_classifier().bias.copy_(before)
    shown = [match for match in (prediction.subclass, prediction.runner_up) if match is not None]
    assert {match.id for match in shown} == ids
    assert [match.distance for match in shown] == sorted(match.distance for match in shown)
    for match in shown:
        assert match.name == f"kind {match.id}"
        row = vit.gallery.centroid_ids.tolist().index(match.id)
        query, centroid = vit.embed([picture(7)])[0], vit.gallery.centroids[row]
        cosine = query @ centroid / np.linalg.norm(query) / np.linalg.norm(centroid)
        assert match.distance == pytest.approx(1 - cosine, abs=1e-5)
    expected = vit.gallery.prototypes(shown[0].id, 2).tolist() if shown else []
    assert list(prediction.prototypes) == expected
    assert list(prediction.prototype_keys) == [f"drawn/{row:02d}.png" for row in expected]


def test_novelty_is_the_distance_beyond_the_threshold(vit: Classifier, cnn: Classifier, tmp_path: Path):
    assert cnn.predict([picture(0)])[0].novelty is None
    strict = load(
        write_tiny(tmp_path / "x", novelty={"threshold": -1.0, "quantile": 0.95, "measured": []}), device="cpu"
    )
    novelty = strict.predict([picture(50)])[0].novelty
    assert novelty.is_novel
    assert novelty.score == pytest.approx(strict.gallery.neighbours(strict.embed([picture(50)]), 1)[1].item())
    assert vit.predict([picture(50)], neighbours=0)[0].novelty.score == pytest.approx(novelty.score, abs=1e-6)


def test_every_kind_of_input_gives_the_same(vit: Classifier, tmp_path: Path):
    image = picture(5)
    image.save(tmp_path / "x.png")
    given = [image, png(image), tmp_path / "x.png", str(tmp_path / "x.png")]
    found = [prediction.to_dict() for prediction in vit.predict(given)]
    assert found == [found[0]] * 4
    assert vit.predict([]) == []
    assert vit.embed([]).shape == (0, vit.gallery.dim)


def test_batches_do_not_change_the_answer(vit: Classifier):
    pictures = [picture(row) for row in range(5)]
    whole, split = vit.embed(pictures), vit.embed(pictures, batch_size=2)
    assert whole.dtype == np.float32
    assert np.allclose(whole, split, atol=1e-5)
    names = [[p.classes[0].name for p in vit.predict(pictures, batch_size=size)] for size in (1, 2, 5)]
    assert names[0] == names[1] == names[2]


def test_counts_limit_what_is_reported(vit: Classifier):
    prediction = vit.predict([picture(0)], top=2, prototypes=1, neighbours=3)[0]
    assert len(prediction.classes) == 2
    assert len(prediction.prototypes) <= 1
    assert len(prediction.neighbours) == 3
    assert len(vit.predict([picture(0)], top=99)[0].classes) == 3
    for wrong in ({"top": 0}, {"top": 2.5}, {"top": True}, {"prototypes": -1}, {"neighbours": "x"}, {"batch_size": 0}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))} must be an integer of at least"):
            vit.predict([picture(0)], **wrong)


@pytest.mark.parametrize(("name", "kind"), [("vit", "votes"), ("cnn", "activation")])
def test_explanation_travels_with_the_prediction(name: str, kind: str, request: pytest.FixtureRequest):
    classifier: Classifier = request.getfixturevalue(name)
    prediction = classifier.predict([picture(1)], explain=True)[0]
    explanation = prediction.explanation
    assert explanation.kind == kind
    assert explanation.box == prediction.box
    alone = classifier.explain(picture(1))
    assert np.array_equal(alone.select().map, explanation.select().map)
    document = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
    assert document["explanation"]["kind"] == kind
    assert document["explanation"]["box"] == list(prediction.box)
    with pytest.raises(UserError, match="classes 0 to 2, not 3"):
        classifier.explain(picture(1), 3)


def test_activation_map_is_of_the_class_asked_for(cnn: Classifier):
    maps = [cnn.explain(picture(1), class_id).activation for class_id in range(3)]
    assert [found.target for found in maps] == [0, 1, 2]
    assert not np.array_equal(maps[0].contributions, maps[1].contributions)
    best = cnn.predict([picture(1)])[0].classes[0].class_id
    assert cnn.explain(picture(1)).activation.target == best


def test_json_form_has_every_part(vit: Classifier):
    prediction = vit.predict([picture(0)])[0]
    document = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
    assert document["classes"][0] == prediction.classes[0]._asdict()
    assert document["neighbours"][0]["key"] == prediction.neighbours[0].key
    assert document["novelty"]["threshold"] == 0.5
    assert document["explanation"] is None
    if prediction.subclass:
        assert document["subclass"]["id"] == prediction.subclass.id
        assert "runner_up" in document["subclass"]
    assert [item["row"] for item in document["prototypes"]] == list(prediction.prototypes)


def test_threads_get_their_own_answers(vit: Classifier):
    expected = [vit.predict([picture(row)], explain=True)[0].to_dict() for row in range(4)]
    found: dict[tuple[int, int], object] = {}

    def work(worker: int) -> None:
        for row in range(4):
            found[worker, row] = vit.predict([picture(row)], explain=True)[0].to_dict()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[worker, row] == expected[row] for worker in range(4) for row in range(4))


def test_unreadable_picture_is_named(vit: Classifier, tmp_path: Path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"Not a readable image: .*text\.png"):
        vit.predict([picture(0), tmp_path / "text.png"])


def test_unknown_device(tmp_path: Path):
    for device in ("gpu", "cuda:99", "meta!"):
        with pytest.raises(UserError, match=f"The device '{device}' is not available here"):
            load(tmp_path, device=device)


def test_missing_folder_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match=r"checkpoint folder .*nowhere does not exist"):
        load(tmp_path / "nowhere")


def edit(directory: Path, weights: dict[str, torch.Tensor | None] | None = None, **root: object) -> Path:
    """Change weights and root keys of config.json, keeping the hashes true."""
    config = json.loads((directory / "config.json").read_text())
    if weights is not None:
        merged = {**load_file(directory / "model.safetensors"), **weights}
        save_file({k: v for k, v in merged.items() if v is not None}, directory / "model.safetensors")
        config["fgdemo"]["sha256"]["model.safetensors"] = file_sha256(directory / "model.safetensors")
    config["fgdemo"].update(root.pop("fgdemo", {}))
    (directory / "config.json").write_text(json.dumps({**config, **root}))
    return directory


def test_weights_that_do_not_fit_name_their_file(tmp_path: Path):
    for change, problem in (
        ({"head.bias": None}, "head.bias"),
        ({"extra": torch.zeros(1)}, "extra"),
        ({"head.weight": torch.zeros(5, 5)}, "head.weight"),
    ):
        directory = edit(write_tiny(tmp_path / "x"), change)
        with pytest.raises(UserError, match=rf"{directory / 'model.safetensors'}: .*{problem}"):
            load(directory, device="cpu")
    bad = edit(write_tiny(tmp_path / "x"), {"head.bias": torch.full((3,), float("nan"))})
    with pytest.raises(UserError, match="not finite"):
        load(bad, device="cpu")


def test_configurations_that_build_nothing_name_their_file(tmp_path: Path):
    for change, problem in (
        ({"fgdemo": {"network": "no_such"}}, "no_such"),
        ({"architecture": "no_such_vit"}, "no_such_vit"),
        ({"model_args": {"img_size": "large"}}, ""),
        ({"model_args": {"checkpoint_path": "evil.pth"}}, "checkpoint_path"),
        ({"model_args": 3}, ""),
        ({"model_args": {"nonsense": 1}}, "nonsense"),
    ):
        directory = edit(write_tiny(tmp_path / "x"), **change)
        with pytest.raises(UserError, match=rf"{directory / 'config.json'}.*{problem}"):
            load(directory, device="cpu")
    preprocessing = json.loads((write_tiny(tmp_path / "y") / "config.json").read_text())["fgdemo"]["preprocessing"]
    for change in ({"interpolation": "magic"}, {"input_size": [3, 65, 64]}):
        directory = edit(write_tiny(tmp_path / "y"), fgdemo={"preprocessing": {**preprocessing, **change}})
        with pytest.raises(UserError, match=rf"{directory / 'config.json'}"):
            load(directory, device="cpu")


def test_the_package_is_cheap_to_import_and_knows_its_version():
    code = "import sys, fgdemo; print(fgdemo.__version__, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert result.stdout.split() == [project["version"], "False"]
    assert fgdemo.load is load
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fgdemo.no_such_name
