"""Tiny versions of the architectures that the encoder must handle."""

from __future__ import annotations

import pytest
import torch

from fgdemo.models.encoder import Encoder
from fgdemo.models.voting import VotingNetwork

# name -> (model_args, sides that fit the patch size: square and not)
TRANSFORMERS = {
    "test_vit": ({}, 64, (64, 96)),
    "vit_small_patch14_dinov2": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 56, (56, 84)),
    "vit_small_patch14_reg4_dinov2": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 56, (84, 56)),
    "vit_small_patch16_dinov3": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 64, (64, 96)),
    "vit_small_patch16_dinov3_qkvb": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 64, (96, 64)),
    "eva02_tiny_patch14_224": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 56, (56, 84)),
    "deit_tiny_distilled_patch16_224": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 64, (64, 96)),
    "vit_conv_mini_patch16_128": ({"depth": 2, "channels": [8, 16, 24, 32], "num_heads": 2}, 64, (64, 96)),
    "vit_mini_r10_s8_96": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 64, (64, 96)),
    "vit_tiny_r_s16_p8_224": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 64, (64, 96)),
}
OTHERS = {
    "resnet18": ({}, 64, (64, 96)),
    "test_efficientnet": ({}, 64, (64, 96)),
    "mobilenetv3_small_050": ({}, 64, (64, 96)),
    "test_convnext": ({}, 64, (64, 96)),
    "convnext_atto": ({"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}, 64, (64, 96)),
    "swin_tiny_patch4_window7_224": ({"depths": [1, 1, 1, 1], "embed_dim": 24}, 64, (64, 96)),
}


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(name, size=None, **arguments):
    """A tiny encoder in eval mode and two random images of its size; values scrambled everywhere, so that zero
    biases, unit norms and tiny scales cannot hide a mistake."""
    args, square, _ = (TRANSFORMERS | OTHERS)[name]
    encoder = Encoder(name, img_size=size or square, model_args=args, **arguments).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return encoder, torch.randn(2, 3, *encoder.input_size)


def make_voting(name="deit_tiny_distilled_patch16_224", size=None, *, model_args=None, scramble=True, **settings):
    """A tiny voting network of two trunk blocks in eval mode and two random images of its size; scrambled as above."""
    args, square, _ = TRANSFORMERS[name]
    network = VotingNetwork(
        name,
        num_classes=5,
        img_size=size or square,
        model_args={**args, "depth": 3, **(model_args or {})},
        settings=settings,
    ).eval()
    if scramble:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return network, torch.randn(2, 3, *network.encoder.input_size)


def _cases(table):
    return [(name, size) for name, (_, square, oblong) in table.items() for size in (square, oblong)]


@pytest.fixture
def build():
    return make


@pytest.fixture
def build_voting():
    return make_voting


@pytest.fixture(params=_cases(TRANSFORMERS), ids=lambda case: f"{case[0]}-{case[1]}")
def voting_case(request):
    """(name, image size) of every vision transformer, square and not."""
    return request.param


@pytest.fixture(params=_cases(TRANSFORMERS), ids=lambda case: f"{case[0]}-{case[1]}")
def transformer(request, _one_seed):
    return make(*request.param)


@pytest.fixture(params=_cases(OTHERS), ids=lambda case: f"{case[0]}-{case[1]}")
def hierarchical(request, _one_seed):
    return make(*request.param)


@pytest.fixture(params=_cases(TRANSFORMERS | OTHERS), ids=lambda case: f"{case[0]}-{case[1]}")
def any_case(request):
    """(name, image size, model_args)."""
    name, size = request.param
    return name, size, (TRANSFORMERS | OTHERS)[name][0]
