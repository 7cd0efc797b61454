"""What a prediction is: one object that the app, the API and the command line all show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from fgdemo.explain.explanation import Explanation

Box = tuple[float, float, float, float]


class ClassScore(NamedTuple):
    class_id: int
    name: str
    probability: float


class SubclassMatch(NamedTuple):
    """A subclass and the cosine distance of the picture to its centroid; ``size`` counts training pictures."""

    id: int
    name: str
    size: int
    distance: float


class SubclassShare(NamedTuple):
    """A subclass and its probability by the network's head, given its class."""

    id: int
    name: str
    probability: float


class Neighbour(NamedTuple):
    """A training picture of the gallery; ``subclass_id`` -1 for none, ``distance`` cosine."""

    row: int
    key: str
    class_name: str
    subclass_id: int
    distance: float


class Novelty(NamedTuple):
    """Cosine distance to the nearest training picture against the checkpoint's threshold."""

    score: float
    threshold: float
    is_novel: bool


@dataclass(frozen=True)
class Prediction:
    """What the app, the API and the command line show of one picture.

    Attributes:
        classes: most probable first.
        superclass: of the first class.
        subclass: nearest subclass inside the first class, or None where that class has none.
        runner_up: second nearest subclass inside the first class, or None.
        posterior: what the network's own head says of the subclasses of the first class, most probable first; empty
            where it has no outputs for them. It may disagree with the nearest subclass.
        prototypes: gallery rows of the subclass, most central first.
        prototype_keys: their sample keys.
        neighbours: nearest training pictures of any class, nearest first.
        novelty: None where the checkpoint has no threshold or no training picture.
        explanation: where it was asked for.
        box: (x0, y0, x1, y1) in pixels of the EXIF-oriented picture: the part that the network saw.
    """

    classes: tuple[ClassScore, ...]
    superclass: str
    subclass: SubclassMatch | None
    runner_up: SubclassMatch | None
    posterior: tuple[SubclassShare, ...]
    prototypes: tuple[int, ...]
    prototype_keys: tuple[str, ...]
    neighbours: tuple[Neighbour, ...]
    novelty: Novelty | None
    explanation: Explanation | None
    box: Box

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``subclass`` carries its runner-up."""
        subclass = None
        if self.subclass is not None:
            runner_up = self.runner_up._asdict() if self.runner_up is not None else None
            subclass = {**self.subclass._asdict(), "runner_up": runner_up}
        pairs = zip(self.prototypes, self.prototype_keys, strict=True)
        return {
            "classes": [score._asdict() for score in self.classes],
            "superclass": self.superclass,
            "subclass": subclass,
            "posterior": [share._asdict() for share in self.posterior],
            "prototypes": [{"row": row, "key": key} for row, key in pairs],
            "neighbours": [neighbour._asdict() for neighbour in self.neighbours],
            "novelty": self.novelty._asdict() if self.novelty is not None else None,
            "explanation": self.explanation.to_dict() if self.explanation is not None else None,
            "box": list(self.box),
        }
