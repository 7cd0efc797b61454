"""What a network's head says of the subclasses of the predicted class, beside the nearest one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fgdemo.__main__ import main
from fgdemo.checkpoint import write_checkpoint
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery
from fgdemo.predict import Classifier, load
from fgdemo.recluster import recluster

from .tiny_checkpoint import kind_of_picture, picture, write_divided, write_tiny

KS = (2, 3, 4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_divided(tmp_path_factory.mktemp("posterior") / "divided", KS)


@pytest.fixture
def classifier(checkpoint: Path) -> Classifier:
    return load(checkpoint, device="cpu")


def force_class(classifier: Classifier, class_id: int) -> None:
    """Make a class win whatever the picture, and leave the differences between its columns."""
    bias = classifier.network.encoder.net.get_classifier().bias
    with torch.no_grad():
        bias.view(3, sum(KS))[class_id] += 1e3


@pytest.mark.parametrize(("class_id", "k"), [(0, 3), (1, 2)])
def test_it_is_the_softmax_over_the_columns_of_the_chosen_hypothesis(classifier: Classifier, class_id: int, k: int):
    force_class(classifier, class_id)
    image = kind_of_picture(500, class_id, 1)
    prediction = classifier.predict([picture(0), image])[1]
    with torch.inference_mode():
        columns = classifier.network(classifier._transform(image)[None]).subclass_logits[0, class_id]
    start = sum(KS[: KS.index(k)])
    expected = columns[start : start + k].softmax(0).tolist()
    by_column = {m["column"]: m for m in classifier.gallery.subclasses["classes"][class_id]["subclasses"]}
    wanted = [(by_column[start + n]["id"], by_column[start + n]["name"], share) for n, share in enumerate(expected)]
    wanted.sort(key=lambda item: -item[2])
    assert [(share.id, share.name) for share in prediction.posterior] == [item[:2] for item in wanted]
    assert [share.probability for share in prediction.posterior] == pytest.approx([item[2] for item in wanted])
    nearest = classifier.gallery.nearest_subclass(classifier.embed([image])[0], class_id)
    assert prediction.subclass.id == nearest.id
    document = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
    assert document["posterior"][0] == prediction.posterior[0]._asdict()


def test_a_single_subclass_has_all_of_it(classifier: Classifier):
    force_class(classifier, 2)
    prediction = classifier.predict([picture(2)])[0]
    assert [(share.id, share.probability) for share in prediction.posterior] == [(prediction.subclass.id, 1.0)]


def test_columns_that_training_never_used(classifier: Classifier):
    force_class(classifier, 1)
    active = classifier.network.active.clone()
    active[1, 0] = False
    classifier.network.set_active(active)
    shares = classifier.predict([picture(1)])[0].posterior
    assert [share.probability for share in shares] == [1.0, 0.0]
    active[1, :2] = False
    classifier.network.set_active(active)
    assert classifier.predict([picture(1)])[0].posterior == ()


def test_no_outputs_no_posterior(tmp_path: Path):
    prediction = load(write_tiny(tmp_path / "plain"), device="cpu").predict([picture(0)])[0]
    assert prediction.posterior == ()
    assert prediction.to_dict()["posterior"] == []


def test_a_class_that_a_person_divided_has_none(checkpoint: Path, classifier: Classifier, tmp_path: Path):
    edited = recluster(classifier.gallery, [0], k=2).gallery
    again = load(save(classifier, edited, tmp_path / "edited"), device="cpu")
    force_class(again, 0)
    assert again.predict([picture(0)])[0].posterior == ()
    other = load(save(classifier, edited, tmp_path / "edited"), device="cpu")
    force_class(other, 1)
    assert len(other.predict([picture(1)])[0].posterior) == 2


def test_columns_of_another_head_are_refused(classifier: Classifier, tmp_path: Path):
    gallery = classifier.gallery
    members = [m for entry in gallery.subclasses["classes"][:1] for m in entry["subclasses"]]
    columns = sorted(m["column"] for m in members)
    assert columns == [2, 3, 4]
    document = json.loads(json.dumps(gallery.subclasses))
    document["ks"] = [2, 3, 5]
    other = gallery.with_subclasses(gallery.subclass_id, document, gallery.centroids)
    directory = save(classifier, other, tmp_path / "other")
    with pytest.raises(UserError, match=r'config.json: the columns in subclasses.json are those of "ks" \[2, 3, 5\]'):
        load(directory, device="cpu")


def save(classifier: Classifier, gallery: Gallery, directory: Path) -> Path:
    return write_checkpoint(
        directory,
        config=classifier.config,
        weights=classifier.network.weights(),
        gallery=gallery.to_tensors(),
        subclasses=gallery.subclasses,
    )


@pytest.mark.parametrize(("class_id", "told"), [(1, True), (2, False)])
def test_the_command_line_tells_what_is_no_matter_of_course(
    classifier: Classifier, tmp_path: Path, capsys: pytest.CaptureFixture, class_id: int, told: bool
):
    force_class(classifier, class_id)
    directory = save(classifier, classifier.gallery, tmp_path / "forced")
    picture(0).save(tmp_path / "0.png")
    assert main(["predict", str(tmp_path / "0.png"), "--checkpoint", str(directory)]) == 0
    first = classifier.predict([tmp_path / "0.png"])[0].posterior[0]
    line = f'subclasses by the network\'s head "{first.name}" {first.probability:.2%}'
    assert (line in capsys.readouterr().out) == told


def test_the_written_checkpoint_is_what_the_fixture_says(checkpoint: Path, classifier: Classifier):
    assert [entry["k"] for entry in classifier.gallery.subclasses["classes"]] == [3, 2, 1]
    table = classifier.gallery.hypotheses
    assert (table[classifier.gallery.class_id == 2] == -1).all()
    assert (table[classifier.gallery.class_id < 2] >= 0).all()
    assert np.array_equal(table, load(checkpoint, device="cpu").gallery.hypotheses)
