"""Local weights: what loads, what is resampled, what is refused."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from fgdemo.errors import UserError
from fgdemo.models.encoder import Encoder


@pytest.fixture
def vit():
    """test_vit of 7 classes at its native 160 pixels."""
    return timm.create_model("test_vit", num_classes=7).eval()


def save(net, path):
    tensors = {k: v.contiguous() for k, v in net.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return str(path)


@torch.no_grad()
@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
def test_weights_round_trip(vit, tmp_path, file):
    encoder = Encoder("test_vit", weights=save(vit, tmp_path / file), num_classes=7).eval()
    images = torch.randn(2, 3, 160, 160)
    assert torch.equal(encoder.net(images), vit(images))
    assert encoder.is_pretrained
    assert not encoder.classifier_is_new


@torch.no_grad()
def test_nested_training_file_prefers_the_averaged_weights(vit, tmp_path):
    other = timm.create_model("test_vit", num_classes=7)
    path = tmp_path / "last.pth.tar"
    torch.save({"epoch": 3, "state_dict": other.state_dict(), "state_dict_ema": vit.state_dict()}, path)
    encoder = Encoder("test_vit", weights=str(path), num_classes=7)
    assert torch.equal(encoder.net.pos_embed, vit.pos_embed)


@torch.no_grad()
def test_directory_means_its_model_file(vit, tmp_path):
    save(vit, tmp_path / "model.safetensors")
    assert torch.equal(Encoder("test_vit", weights=str(tmp_path)).net.cls_token, vit.cls_token)


@torch.no_grad()
def test_classifier_of_another_size_is_replaced_with_a_note(vit, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="fgdemo"):
        encoder = Encoder("test_vit", weights=save(vit, tmp_path / "w.safetensors"), num_classes=4)
    assert "classifier of 7 classes dropped" in caplog.text
    assert encoder.classifier_is_new
    assert encoder.net.head.weight.shape == (4, 64)
    for name, value in vit.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(encoder.net.state_dict()[name], value), name


@torch.no_grad()
def test_headless_file_gives_a_new_classifier(vit, tmp_path):
    vit.reset_classifier(0)
    path = save(vit, tmp_path / "w.safetensors")
    assert Encoder("test_vit", weights=path, num_classes=4).classifier_is_new
    assert not Encoder("test_vit", weights=path).classifier_is_new


@torch.no_grad()
def test_position_table_is_resampled_by_timm(vit, tmp_path):
    path = save(vit, tmp_path / "w.safetensors")
    encoder = Encoder("test_vit", weights=path, img_size=(64, 96))
    expected = timm.layers.resample_abs_pos_embed(vit.pos_embed, (4, 6), num_prefix_tokens=1)
    torch.testing.assert_close(encoder.net.pos_embed, expected)


@torch.no_grad()
def test_non_square_table_is_resampled_from_the_size_in_config_json(tmp_path):
    oblong = timm.create_model("test_vit", num_classes=0, img_size=(64, 144))
    assert oblong.pos_embed.shape[1] == 1 + 36, "a square number, so the grid cannot be guessed"
    save(oblong, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "test_vit", "model_args": {"img_size": [64, 144]}})
    )
    encoder = Encoder("test_vit", weights=str(tmp_path), img_size=(96, 96))
    expected = timm.layers.resample_abs_pos_embed(oblong.pos_embed, (6, 6), old_size=(4, 9), num_prefix_tokens=1)
    torch.testing.assert_close(encoder.net.pos_embed, expected)
    assert not torch.allclose(encoder.net.pos_embed, oblong.pos_embed)


def test_crop_of_trained_weights_is_kept(vit, tmp_path):
    encoder = Encoder("test_vit", weights=save(vit, tmp_path / "w.safetensors"), img_size=64)
    assert encoder.data_config["crop_pct"] == vit.pretrained_cfg["crop_pct"] < 1


def without(net, key):
    return {k: v for k, v in net.state_dict().items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: without(v, "norm.weight"), "missing norm.weight"),
        (lambda v: v.state_dict() | {"extra.weight": torch.zeros(2)}, "unexpected extra.weight"),
        (lambda v: v.state_dict() | {"norm.weight": torch.zeros(5)}, r"norm.weight \[5\] for \[64\]"),
        (lambda v: {"some": torch.zeros(1)}, "missing"),
    ],
)
def test_tensors_that_do_not_fit_are_named(vit, tmp_path, change, message):
    save_file(change(vit), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=message) as caught:
        Encoder("test_vit", weights=str(tmp_path / "w.safetensors"))
    assert "w.safetensors" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_no_published_weights():
    with pytest.raises(UserError, match="--no-pretrained"):
        Encoder("vit_small_patch16_18x2_224", pretrained=True)


def test_off_line_error_names_both_ways_out(tmp_path):
    code = (
        "from fgdemo.models.encoder import Encoder\nfrom fgdemo.errors import UserError\n"
        "try: Encoder('resnet18', pretrained=True)\nexcept UserError as e: print(e)"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert "--encoder-weights FILE" in out
    assert "--no-pretrained" in out
    assert len(out.splitlines()) == 1
