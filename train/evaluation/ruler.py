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
        setting: options -> a name without slashes, where figures under several settings are kept side by side, each
            under its name; None where a new measurement replaces the one before.
    """

    name: str
    Options: type
    measure: Callable[[Subject, Any], dict[str, Any]]
    lines: Callable[[dict[str, Any]], list[str]]
    setting: Callable[[Any], str] | None = None

    def section(self, subject: Subject, options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Figures as they stand in the JSON under `name`, and outcomes by the paths of their figures."""
        found = self.measure(subject, options)
        outcomes = found.pop("outcomes", {})
        if self.setting is None:
            return found, outcomes
        name = self.setting(options)
        moved = {path.replace(self.name, f"{self.name}/{name}", 1): outcome for path, outcome in outcomes.items()}
        return {name: found}, moved

    def table(self, section: dict[str, Any]) -> list[str]:
        """The lines of what `section` gave."""
        parts = [section] if self.setting is None else section.values()
        return [line for part in parts for line in self.lines(part)]
