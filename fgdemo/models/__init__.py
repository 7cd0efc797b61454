"""Encoders (any timm model) and the networks that methods train on them."""

from fgdemo.models.build import build_classifier, build_from_config, build_network
from fgdemo.models.encoder import Encoder
from fgdemo.models.network import NETWORKS, Network, NetworkOutput, register_network

__all__ = [
    "NETWORKS",
    "Encoder",
    "Network",
    "NetworkOutput",
    "build_classifier",
    "build_from_config",
    "build_network",
    "register_network",
]
