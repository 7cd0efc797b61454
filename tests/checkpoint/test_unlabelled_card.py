"""The card of a checkpoint whose pictures have no labels, and of one that nothing was trained for."""

from __future__ import annotations

from huggingface_hub import ModelCard

from fgdemo.checkpoint import model_card

from .conftest import config, subclasses


def test_clusters_are_listed_in_place_of_classes():
    plain = config()
    plain["fgdemo"]["labels"] = "none"
    text = model_card(plain, subclasses())
    assert ModelCard(text).data.pipeline_tag == "image-feature-extraction"
    assert "Pictures without labels in 3 clusters." in text
    assert "## Clusters" in text
    assert "| 7 | 2 | 5 |" in text
    assert "daisy" not in text
    assert "It names the nearest cluster whatever the picture shows." in text
    assert "one of its" not in text


def test_many_clusters_are_cut_and_said():
    document = subclasses()
    document["classes"] = document["classes"][:1]
    member = document["classes"][0]["subclasses"][0]
    document["classes"][0]["subclasses"] = [{**member, "id": i, "name": f"c{i}"} for i in range(510)]
    plain = config()
    plain["fgdemo"]["labels"] = "none"
    text = model_card(plain, document)
    assert "| 499 | c499 |" in text
    assert "c500" not in text
    assert "10 further clusters" in text


def test_an_index_claims_no_training():
    made = config()
    del made["architecture"], made["pretrained_cfg"]
    made["fgdemo"] |= {
        "method": "index",
        "network": "neighbours",
        "network_args": {"architecture": "resnet18", "k": 12},
    }
    text = model_card(made, subclasses())
    assert "Nothing was trained for it" in text
    assert "Network: resnet18" in text
    assert "## How it was made" in text
    assert "## Training" not in text
    assert "votes of the 12 nearest pictures" in text
    trained = model_card(config(), subclasses())
    assert "Nothing was trained" not in trained
    assert "nearest pictures" not in trained


def test_the_pictures_behind_the_flag_are_named():
    other = config()
    other["fgdemo"]["novelty"]["pictures"] = "the gallery's own pictures, each left out in turn"
    assert "the 95% quantile on the gallery's own pictures, each left out in turn" in model_card(other, subclasses())
    assert "the 95% quantile on validation pictures" in model_card(config(), subclasses())
