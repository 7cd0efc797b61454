"""A sweep as a file: rows of method x options x seeds, how they are evaluated, and which is compared with which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fgdemo.errors import UserError
from train.ledger import setting_of
from train.methods import METHODS
from train.options import FREE_ON_RESUME

OWN_RUN = "run"
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_KEYS = ("title", "seeds", "evaluate", "rows", "figures", "compare")
_ROW_KEYS = ("method", "config", "options", "evaluate", "seeds")


@dataclass(frozen=True)
class Row:
    """One setting, trained once for each seed.

    Attributes:
        options: of the training command, the recipe's and the row's own merged. A value may contain `${OTHER}`, which
            stands for a run folder of the row OTHER: that with the same seed or, where OTHER has fewer seeds, with one
            of those in turn.
        evaluate: options of `evaluate`, likewise; `${run}` there is the row's own folder.
        based_on: `training` of the other rows that are referred to.
    """

    name: str
    method: str
    options: dict[str, Any]
    evaluate: dict[str, Any]
    seeds: tuple[int, ...]
    based_on: dict[str, str] = field(default_factory=dict)

    @property
    def training(self) -> str:
        """Hash of what decides the trained network, but for the seed: another evaluation needs no new training."""
        return setting_of(self.method, self._decisive, {})

    @property
    def setting(self) -> str:
        """Hash of what decides the figures, but for the seed."""
        return setting_of(self.method, self._decisive, self._by_training(self.evaluate))

    @property
    def _decisive(self) -> dict[str, Any]:
        values = {name: value for name, value in self.options.items() if name not in FREE_ON_RESUME}
        return self._by_training(values)

    def _by_training(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Options in which a reference is to what the other row trains rather than to its name."""
        return fill_references(values, {**self.based_on, OWN_RUN: f"${{{OWN_RUN}}}"})


@dataclass(frozen=True)
class Sweep:
    """A whole file.

    Attributes:
        figures: the columns of its table, names of the ledger's figures.
        compare: row -> the controls that it is paired with, seed by seed; in the file one name or a list.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    figures: tuple[str, ...]
    compare: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def seed_of(self, name: str, seed: int) -> int:
        """The seed of row `name` whose run a trial with `seed` refers to."""
        seeds = self.row(name).seeds
        return seed if seed in seeds else seeds[seed % len(seeds)]


def fill_references(values: Mapping[str, Any], rows: Mapping[str, Path | str]) -> dict[str, Any]:
    """Option values with every `${ROW}` replaced by what is given for that row, such as its folder."""

    def fill(value: Any) -> Any:
        return _REFERENCE.sub(lambda m: str(rows[m.group(1)]), value) if isinstance(value, str) else value

    return {name: fill(value) for name, value in values.items()}


def references(values: Iterable[Any]) -> list[str]:
    """Names of the other rows that option values refer to."""
    texts = [value for value in values if isinstance(value, str)]
    return sorted({name for text in texts for name in _REFERENCE.findall(text)} - {OWN_RUN})


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep file; paths of recipes in it are relative to it.

    Raises:
        UserError: the file, or a recipe it names, cannot be read, or holds an unknown key, method or row.
    """
    content = _mapping(path)
    _known(path, content, _KEYS)
    for key in ("seeds", "rows", "figures"):
        if not content.get(key):
            raise UserError(f"{path} has no {key}: a sweep needs seeds, rows and figures.")
    rows: dict[str, Row] = {}
    for name, value in content["rows"].items():
        rows[name] = _row(path, name, value or {}, content, rows)
    sweep = Sweep(
        name=path.stem,
        title=content.get("title") or path.stem,
        rows=tuple(rows.values()),
        figures=tuple(content["figures"]),
        compare={
            ours: (controls,) if isinstance(controls, str) else tuple(controls)
            for ours, controls in (content.get("compare") or {}).items()
        },
    )
    if OWN_RUN in rows:
        raise UserError(f"{path}: no row may be called {OWN_RUN}: ${{{OWN_RUN}}} is a row's own folder.")
    for ours, controls in sweep.compare.items():
        for name in (ours, *controls):
            if name not in rows:
                raise UserError(f"{path} compares {name}, which is none of its rows: {', '.join(rows)}.")
    return sweep


def _row(path: Path, name: str, value: Mapping[str, Any], content: Mapping[str, Any], above: Mapping[str, Row]) -> Row:
    _known(path, value, _ROW_KEYS, f"row {name}: ")
    method = value.get("method", "classify")
    if method not in METHODS:
        raise UserError(f"{path}: row {name}: unknown method '{method}'; choose one of {', '.join(METHODS)}.")
    recipe = _mapping(path.parent / value["config"]) if value.get("config") else {}
    seeds = value.get("seeds", content["seeds"])
    if not (isinstance(seeds, list) and all(isinstance(s, int) and s >= 0 for s in seeds)):
        raise UserError(f"{path}: row {name}: seeds must be a list of whole numbers, not {seeds!r}.")
    options = {**recipe, **(value.get("options") or {})}
    evaluate = {**(content.get("evaluate") or {}), **(value.get("evaluate") or {})}
    based_on = {}
    for other in references([*options.values(), *evaluate.values()]):
        if other not in above:
            raise UserError(f"{path}: row {name} refers to ${{{other}}}, which is no row above it.")
        based_on[other] = above[other].training
    return Row(name, method, options, evaluate, tuple(seeds), based_on)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no mapping of names to values.")
    return content


def _known(path: Path, content: Mapping[str, Any], names: tuple[str, ...], where: str = "") -> None:
    for key in content:
        if key not in names:
            raise UserError(f"{path}: {where}unknown key '{key}'; known: {', '.join(names)}.")
