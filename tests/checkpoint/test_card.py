from __future__ import annotations

import pytest
from huggingface_hub import ModelCard

from fgdemo.checkpoint import model_card
from fgdemo.errors import UserError

from .conftest import config, subclasses


def test_front_matter_is_what_the_hub_reads():
    described = config()
    described["fgdemo"]["license"] = "apache-2.0"
    described["fgdemo"]["training"]["base_model"] = "timm/vit_small_patch14_dinov2.lvd142m"
    data = ModelCard(model_card(described, subclasses())).data
    assert data.library_name == "fgdemo"
    assert data.pipeline_tag == "image-classification"
    assert data.license == "apache-2.0"
    assert data.base_model == "timm/vit_small_patch14_dinov2.lvd142m"
    assert "classify" in data.tags
    found = {(r.dataset_name, r.dataset_split, r.metric_type, r.metric_name, r.metric_value) for r in data.eval_results}
    assert found == {("scenes", "val", "accuracy", "top1", 0.875), ("scenes", "test", "ece", "ece", 0.03125)}


def test_figures_carry_their_split_and_count():
    text = model_card(config(), subclasses())
    assert "| val | top1 | 0.875 | 40 |" in text
    assert "| test | ece | 0.03125 | 80 |" in text
    assert "No figure here was measured on a test split" not in text


def test_without_figures_none_are_shown():
    plain = config()
    plain["fgdemo"]["metrics"], plain["fgdemo"]["novelty"] = [], None
    text = model_card(plain, subclasses())
    assert "model-index" not in text
    assert "## Figures" not in text
    assert "unlike anything" not in text
    assert "No figure here was measured on a test split" in text
    assert "apache" not in text


def test_classes_table_is_inert():
    text = model_card(config(), subclasses())
    assert "| 0 | daisy | flower | 2 (5), 1 (5) | silhouette |" in text
    assert "| 1 | rose \\| &lt;b&gt;x&lt;/b&gt; | flower | 1 (5) | silhouette |" in text
    assert "| 2 | été | season |  |  |" in text


def test_names_from_folders_cannot_break_the_card():
    hostile = config()
    hostile["label_names"][0] = "a\n---\nlicense: mit\n# x"
    hostile["fgdemo"]["title"] = "x\n---\n<script>"
    hostile["fgdemo"]["training"]["command"] = "train\n```\n# y"
    card = ModelCard(model_card(hostile, subclasses()))
    assert card.data.license is None
    assert "<script>" not in card.text
    assert "a --- license: mit \\# x" in card.text
    assert card.text.count("```") % 2 == 0


def test_timm_usage_only_for_plain_timm_networks():
    assert "timm.create_model" in model_card(config(), subclasses())
    other = config()
    other["fgdemo"]["network"] = "voting"
    assert "timm.create_model" not in model_card(other, subclasses())


def test_many_classes_are_cut_and_said():
    large = config()
    large["num_classes"] = 600
    large["label_names"] = [f"c{i}" for i in range(600)]
    large["fgdemo"]["superclass_names"] = ["s"] * 600
    text = model_card(large, subclasses())
    assert "| 499 | c499 |" in text
    assert "c500" not in text
    assert "100 further classes" in text


def test_metadata_that_the_hub_would_refuse():
    wrong = config()
    wrong["fgdemo"]["training"]["dataset"] = {"not": "a name"}
    with pytest.raises(UserError, match="not valid for the Hub"):
        model_card(wrong, subclasses())
