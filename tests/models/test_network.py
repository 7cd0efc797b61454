"""The plain timm network: outputs, configuration, exchange with timm, freezing, and the registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from fgdemo.errors import UserError
from fgdemo.models.build import build_from_config, build_network
from fgdemo.models.network import Network, register_network


def network(name, size, args, **arguments):
    return build_network("timm", architecture=name, num_classes=5, img_size=size, model_args=args, **arguments).eval()


def as_checkpoint(net):
    return json.loads(json.dumps(net.config() | {"fgdemo": {"network": "timm"}}))


@torch.no_grad()
def test_logits_are_exactly_timms_and_the_embedding_its_pre_logits(any_case):
    net = network(*any_case)
    images = torch.randn(2, 3, *net.encoder.input_size)
    out = net(images)
    assert torch.equal(out.logits, net.encoder.net(images))
    assert torch.equal(out.embedding, net.encoder(images))
    assert out.logits.shape == (2, 5)
    assert out.embedding.shape == (2, net.encoder.dim)


@torch.no_grad()
def test_config_and_weights_rebuild_the_network(any_case):
    net = network(*any_case)
    again = build_from_config(as_checkpoint(net)).eval()
    again.load_weights(net.weights())
    images = torch.randn(2, 3, *net.encoder.input_size)
    assert torch.equal(again(images).logits, net(images).logits)
    assert again.encoder.data_config == net.encoder.data_config
    assert again.config() == net.config()


def test_weights_have_exactly_timms_keys_and_own_their_memory(any_case):
    name, size, args = any_case
    net = network(name, size, args)
    weights = net.weights()
    assert list(weights) == list(net.encoder.net.state_dict())
    assert all(t.is_contiguous() and not t.requires_grad for t in weights.values())
    own = {p.data_ptr() for p in net.state_dict().values() if p.numel()}
    assert not own & {t.data_ptr() for t in weights.values() if t.numel()}


LOAD_WITH_TIMM_ALONE = """
import json, sys
sys.modules["fgdemo"] = None
import timm, torch
from safetensors.torch import load_file, save_file
logits, configs = {}, {}
for directory in sys.argv[1:]:
    net = timm.create_model(f"local-dir:{directory}", pretrained=True).eval()
    with torch.no_grad():
        logits = net(load_file(directory + "/images.safetensors")["images"])
    save_file({"logits": logits}, directory + "/logits.safetensors")
    with open(directory + "/data.json", "w") as file:
        json.dump(timm.data.resolve_model_data_config(net) | {"names": net.pretrained_cfg["label_names"]}, file)
"""


@torch.no_grad()
def test_timm_alone_loads_what_we_write(build, tmp_path):
    """Equal logits and preprocessing in a process that cannot import fgdemo."""
    from safetensors.torch import load_file

    expected = {}
    for name in ("test_vit", "vit_small_patch16_dinov3", "resnet18", "swin_tiny_patch4_window7_224", "test_convnext"):
        encoder, images = build(name)
        size = (64, 96)
        net = network(name, size, encoder.model_args, data_config={"crop_pct": 0.8})
        images = torch.randn(2, 3, *size)
        directory = tmp_path / name
        directory.mkdir()
        config = net.config() | {"label_names": list("abcde"), "fgdemo": {"network": "timm"}}
        (directory / "config.json").write_text(json.dumps(config))
        save_file(net.weights(), directory / "model.safetensors")
        save_file({"images": images}, directory / "images.safetensors")
        expected[directory] = (net(images).logits, net.encoder.data_config)
    subprocess.run(
        [sys.executable, "-c", LOAD_WITH_TIMM_ALONE, *map(str, expected)],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    for directory, (logits, data_config) in expected.items():
        torch.testing.assert_close(load_file(directory / "logits.safetensors")["logits"], logits, rtol=0, atol=1e-6)
        seen = json.loads((directory / "data.json").read_text())
        assert seen.pop("names") == list("abcde")
        assert seen == json.loads(json.dumps(data_config)), directory.name


def test_float16_weights_are_widened():
    net = network("test_vit", 64, {})
    half = {k: v.half() for k, v in net.weights().items()}
    net.load_weights(half)
    assert net.encoder.net.pos_embed.dtype == torch.float32
    assert torch.equal(net.encoder.net.pos_embed, half["pos_embed"].float())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("norm.weight", None, "missing norm.weight"),
        ("extra", torch.zeros(1), "unexpected extra"),
        ("head.bias", torch.zeros(9), r"head.bias \[9\] for \[5\]"),
    ],
)
def test_strict_loading_names_the_tensor(key, value, message):
    net = network("test_vit", 64, {})
    weights = net.weights() | {key: value}
    if value is None:
        del weights[key]
    with pytest.raises(UserError, match=message):
        net.load_weights(weights)


def test_new_modules_are_what_was_not_loaded(tmp_path):
    assert network("test_vit", 64, {}).new_modules() == ()
    trained = timm.create_model("test_vit", num_classes=5)
    save_file(trained.state_dict(), tmp_path / "five.safetensors")
    five = {"architecture": "test_vit", "weights": str(tmp_path / "five.safetensors")}
    assert build_network("timm", num_classes=5, **five).new_modules() == ()
    net = build_network("timm", num_classes=6, **five)
    assert net.new_modules() == ("encoder.net.head",)
    assert all(any(n.startswith(p) for n, _ in net.named_parameters()) for p in net.new_modules())
    distilled = {"architecture": "deit_tiny_distilled_patch16_224", "model_args": {"depth": 1}}
    source = timm.create_model(distilled["architecture"], depth=1, num_classes=5)
    save_file(source.state_dict(), tmp_path / "deit.safetensors")
    net = build_network("timm", num_classes=6, weights=str(tmp_path / "deit.safetensors"), **distilled)
    assert net.new_modules() == ("encoder.net.head", "encoder.net.head_dist")


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "deit_tiny_distilled_patch16_224", "convnext_atto"])
def test_frozen_encoder_stays_as_it_is(name):
    net = build_network("timm", architecture=name, num_classes=3, img_size=64, model_args={"drop_path_rate": 0.5})
    net.freeze_encoder()
    net.train()
    heads = {id(p) for head in net.head_modules() for p in head.parameters()}
    assert heads
    assert all(p.requires_grad == (id(p) in heads) for p in net.parameters())
    before = net.weights()
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1.0)
    images = torch.randn(4, 3, 64, 64)
    first = net(images)
    assert torch.equal(first.embedding, net(images).embedding), "stochastic depth must be off"
    first.logits.square().sum().backward()
    optimiser.step()
    changed = {k for k, v in net.weights().items() if not torch.equal(v, before[k])}
    named = {k for k, p in net.encoder.net.named_parameters() if id(p) in heads}
    assert changed == named
    assert net.training


def test_unfrozen_network_trains_as_usual():
    net = build_network("timm", architecture="resnet18", num_classes=3)
    net.eval()
    net.train()
    assert all(m.training for m in net.modules())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_network("nothing"), "timm"),
        (lambda: build_network("timm", architecture="resnet18", num_classes=0), "at least one class"),
        (lambda: build_from_config({"fgdemo": {"network": "later"}}), "newer fgdemo"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_config_of_an_architecture_timm_does_not_have():
    config = as_checkpoint(network("test_vit", 64, {})) | {"architecture": "vit_of_tomorrow"}
    with pytest.raises(UserError, match="upgrade timm"):
        build_from_config(config)


@pytest.mark.parametrize("args", [{"checkpoint_path": "/tmp/x.pth"}, {"pretrained": True}, {"embed_dim": 7}])
def test_config_cannot_smuggle_arguments(args):
    config = as_checkpoint(network("test_vit", 64, {}))
    config["model_args"] |= args
    with pytest.raises(UserError):
        build_from_config(config)


def test_config_of_random_start_claims_no_origin():
    config = network("resnet18", 64, {}).config()
    assert config["architecture"] == "resnet18"
    assert not {"url", "hf_hub_id", "tag", "license", "origin_url"} & set(config["pretrained_cfg"])


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="twice"):
        register_network("timm")(Network)
