from __future__ import annotations

import pytest
import torch

from fgdemo.models.build import build_network


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def network():
    """A small network by architecture, with random values everywhere, in evaluation mode."""

    def build(name, size=(64, 96), **model_args):
        net = build_network("timm", architecture=name, num_classes=5, img_size=size, model_args=model_args).eval()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        return net

    return build
