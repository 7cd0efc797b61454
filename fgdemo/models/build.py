"""From a network's name, or a checkpoint's config.json, to a network."""

from __future__ import annotations

from typing import Any

from fgdemo.errors import UserError
from fgdemo.models.conv_vit import OWN_ARCHITECTURES
from fgdemo.models.neighbour_network import NeighbourNetwork  # noqa: F401  (registers "neighbours")
from fgdemo.models.network import NETWORKS, Network
from fgdemo.models.subclass_network import SubclassNetwork  # noqa: F401  (registers "subclasses")
from fgdemo.models.timm_network import TimmNetwork  # noqa: F401  (registers "timm")
from fgdemo.models.voting import VotingNetwork  # noqa: F401  (registers "voting")


def build_network(name: str, **arguments: Any) -> Network:
    """A network of the registry; arguments are those of its class.

    Raises:
        UserError: unknown name, or anything the network refuses.
    """
    return _network_class(name)(**arguments)


def build_classifier(architecture: str, **arguments: Any) -> Network:
    """A plain encoder with its own linear classifier, as the network its checkpoints will name.

    Raises:
        UserError: unknown architecture, or anything the network refuses.
    """
    name = "conv_vit" if architecture in OWN_ARCHITECTURES else "timm"
    return build_network(name, architecture=architecture, **arguments)


def build_from_config(config: dict[str, Any]) -> Network:
    """The network that a checkpoint's config.json describes, with random weights.

    Raises:
        UserError: a network or architecture that is not known here.
    """
    return _network_class(config["fgdemo"]["network"]).from_config(config)


def _network_class(name: str) -> type[Network]:
    if name not in NETWORKS:
        raise UserError(f"Unknown network {name!r}; known: {', '.join(sorted(NETWORKS))}. A newer fgdemo may have it.")
    return NETWORKS[name]
