"""What `evaluate` asks of a ruler: options, figures, lines for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from train.evaluation.subject import Subject


class Ruler(NamedTuple):
    """One sort of measurement.

    Attributes:
        name: key of its figures in the JSON, and the field of its options that switches it on.
        Options: dataclass of its options.
        measure: (subject, options) -> figures as plain JSON values; called on every process.
        lines: figures -> the lines of a table.
    """

    name: str
    Options: type
    measure: Callable[[Subject, Any], dict[str, Any]]
    lines: Callable[[dict[str, Any]], list[str]]
