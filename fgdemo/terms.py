"""What people are told of the groups of pictures: subclasses, or clusters where a checkpoint has no classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Terms:
    """group, groups: singular and plural; labelled: whether there are classes to tell of."""

    group: str
    groups: str
    labelled: bool

    def title(self, name: str) -> str:
        """A group's heading."""
        return f"{self.group.capitalize()} {name}"


SUBCLASSES = Terms("subclass", "subclasses", True)
CLUSTERS = Terms("cluster", "clusters", False)


def terms(config: dict[str, Any]) -> Terms:
    """Those of a checkpoint's config.json: under `labels: none` one class holds all pictures, and means nothing."""
    return CLUSTERS if config["fgdemo"]["labels"] == "none" else SUBCLASSES
