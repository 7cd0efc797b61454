"""Features, tokens, sizes and refusals of the encoder, over the families that matter."""

from __future__ import annotations

import pytest
import timm
import torch

from fgdemo.errors import UserError
from fgdemo.models.encoder import Encoder


@torch.no_grad()
def test_features_are_timms_pre_logits(any_case):
    name, size, args = any_case
    encoder = Encoder(name, img_size=size, num_classes=3, model_args=args).eval()
    images = torch.randn(2, 3, *encoder.input_size)
    features = encoder(images)
    assert features.shape == (2, encoder.dim)
    net = encoder.net
    assert torch.equal(features, net.forward_head(net.forward_features(images), pre_logits=True))


@torch.no_grad()
def test_without_a_classifier_features_are_the_plain_timm_output(any_case):
    name, size, args = any_case
    encoder = Encoder(name, img_size=size, model_args=args).eval()
    images = torch.randn(2, 3, *encoder.input_size)
    assert torch.equal(encoder(images), encoder.net(images))


@torch.no_grad()
def test_tokens_follow_the_grid_in_raster_order(transformer):
    encoder, images = transformer
    features, patches, grid = encoder.forward_tokens(images)
    sequence = encoder.net.forward_features(images)
    assert grid == encoder.grid_of(images.shape[-2:])
    assert patches.shape == (2, grid[0] * grid[1], sequence.shape[-1])
    assert torch.equal(patches, sequence[:, encoder.num_prefix_tokens :])
    assert torch.equal(features, encoder(images))
    laid_out = encoder.feature_map(images)
    assert laid_out.shape == (2, sequence.shape[-1], *grid)
    assert torch.equal(laid_out[:, :, 1, 0], patches[:, grid[1]])


@pytest.mark.parametrize(
    ("name", "prefix", "heads"),
    [
        ("test_vit", 1, 2),
        ("vit_small_patch14_dinov2", 1, 3),
        ("vit_small_patch14_reg4_dinov2", 5, 3),
        ("vit_small_patch16_dinov3", 5, 3),
        ("deit_tiny_distilled_patch16_224", 2, 3),
        ("vit_tiny_r_s16_p8_224", 1, 3),
    ],
)
def test_what_transformers_say_of_themselves(build, name, prefix, heads):
    encoder, _ = build(name)
    assert (encoder.has_tokens, encoder.has_class_rows) == (True, True)
    assert (encoder.num_prefix_tokens, encoder.num_heads) == (prefix, heads)
    assert encoder.num_blocks == len(encoder.net.blocks)


@torch.no_grad()
def test_models_without_class_rows_say_so(hierarchical):
    encoder, images = hierarchical
    assert (encoder.has_tokens, encoder.has_class_rows) == (False, False)
    assert (encoder.num_prefix_tokens, encoder.num_blocks, encoder.num_heads) == (0, 0, 0)
    with pytest.raises(ValueError, match="class-token"):
        encoder.class_rows(images)
    with pytest.raises(ValueError, match="patch tokens"):
        encoder.forward_tokens(images)
    h, w = images.shape[-2:]
    feature_map = encoder.feature_map(images)
    assert feature_map.shape[2:] == (h // 32, w // 32)


@torch.no_grad()
def test_channels_last_maps_are_turned():
    encoder = Encoder("swin_tiny_patch4_window7_224", img_size=(64, 96), model_args={"depths": [1, 1, 1, 1]}).eval()
    images = torch.randn(1, 3, 64, 96)
    raw = encoder.net.forward_features(images)
    assert raw.shape == (1, 2, 3, 768)
    assert torch.equal(encoder.feature_map(images)[0, :, 1, 2], raw[0, 1, 2])


def test_a_vit_without_class_token_has_tokens_but_no_rows():
    encoder = Encoder("test_vit", img_size=64, model_args={"class_token": False, "global_pool": "avg"})
    assert (encoder.has_tokens, encoder.has_class_rows, encoder.num_prefix_tokens) == (True, False, 0)


def test_dropped_patches_leave_no_rows():
    encoder = Encoder("test_vit", img_size=64, model_args={"patch_drop_rate": 0.5})
    assert not encoder.has_class_rows


@torch.no_grad()
def test_attention_without_adapter_has_no_rows_yet_maps_work():
    encoder = Encoder("beit_base_patch16_224", img_size=64, model_args={"depth": 1, "embed_dim": 48, "num_heads": 3})
    assert not encoder.has_class_rows
    assert encoder.eval().feature_map(torch.randn(1, 3, 64, 64)).shape == (1, 48, 4, 4)


@torch.no_grad()
def test_dynamic_sizes_take_the_grid_of_each_batch():
    encoder = Encoder("test_vit", img_size=64, model_args={"dynamic_img_size": True}).eval()
    assert encoder.forward_tokens(torch.randn(1, 3, 96, 64)).grid == (6, 4)
    assert encoder.class_rows(torch.randn(1, 3, 64, 128)).grid == (4, 8)


def test_data_config_has_the_size_in_use():
    config = Encoder("test_vit", img_size=(64, 96)).data_config
    native = timm.data.resolve_model_data_config(timm.create_model("test_vit"))
    assert config["input_size"] == (3, 64, 96)
    assert config["crop_pct"] == 1.0
    assert {k: v for k, v in config.items() if k not in ("input_size", "crop_pct")} == {
        k: v for k, v in native.items() if k not in ("input_size", "crop_pct")
    }
    assert Encoder("resnet18", img_size=48).data_config["input_size"] == (3, 48, 48)
    assert Encoder("resnet18").data_config["input_size"] == (3, 224, 224)


def test_given_data_config_goes_before_timms():
    config = Encoder("resnet18", img_size=48, data_config={"mean": [0, 0, 0], "crop_pct": 0.8}).data_config
    assert (config["mean"], config["crop_pct"], config["input_size"]) == ((0, 0, 0), 0.8, (3, 48, 48))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet81"}, "resnet18"),
        ({"name": "resnet18.no_such_tag"}, "a1_in1k"),
        ({"name": "test_vit", "img_size": 100}, "patches of 16"),
        ({"name": "vit_small_patch14_dinov2", "img_size": (224, 230), "model_args": {"depth": 1}}, "patches of 14"),
        ({"name": "test_vit", "img_size": 0}, "image size"),
        ({"name": "test_vit", "img_size": (64, 64, 3)}, "image size"),
        ({"name": "resnet18", "model_args": {"no_such_argument": 1}}, "no_such_argument"),
        ({"name": "resnet18", "model_args": {"checkpoint_path": "x.pth"}}, "checkpoint_path"),
        ({"name": "resnet18", "model_args": {"act_layer": torch.nn.ReLU}}, "JSON"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments, message):
    name = arguments.pop("name")
    with pytest.raises(UserError, match=message) as caught:
        Encoder(name, **arguments)
    assert "\n" not in str(caught.value)


def test_unknown_name_suggests_close_ones():
    with pytest.raises(UserError, match="vit_small_patch14_dinov2"):
        Encoder("vit_small_patch14_dino2")


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "message"), [("crossvit_9_240", "several outputs"), ("coat_lite_tiny", "no known grid")]
)
def test_architectures_without_one_map_say_so_and_still_give_features(name, message):
    encoder = Encoder(name).eval()
    images = torch.randn(1, 3, *encoder.input_size)
    assert encoder(images).shape == (1, encoder.dim)
    with pytest.raises(UserError, match=message):
        encoder.feature_map(images)


def test_model_that_cannot_classify_is_refused():
    @timm.models.register_model
    def bare_encoder(pretrained=False, **kwargs):
        net = torch.nn.Conv2d(3, 4, 1)
        net.num_features, net.pretrained_cfg = 4, {}
        return net

    with pytest.raises(UserError, match="bare_encoder has no pooled features"):
        Encoder("bare_encoder")


@torch.no_grad()
def test_models_registered_with_timm_by_others_work():
    @timm.models.register_model
    def home_made_vit(pretrained=False, **kwargs):
        return timm.models.vision_transformer._create_vision_transformer(
            "test_vit", pretrained, embed_dim=64, depth=2, num_heads=2, **kwargs
        )

    encoder = Encoder("home_made_vit", num_classes=3).eval()
    assert encoder.has_class_rows
    assert encoder(torch.randn(1, 3, *encoder.input_size)).shape == (1, 64)
