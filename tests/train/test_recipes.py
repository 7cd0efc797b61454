"""Every recipe that is shipped is one that its method accepts, and says how it is run."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from support.commands import ROOT
from support.runs import data_info
from timm import is_model
from timm.models import is_model_pretrained

from fgdemo.data import dataset_names
from train.cli import build_parser, split_namespace
from train.methods import METHODS
from train.options import GROUPS, OptimOptions
from train.run import check_options

RECIPES = sorted(
    path for folder in ("", "voting", "fgdcc") for path in (ROOT / "train" / "recipes" / folder).glob("*.yaml")
)


def command(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_options_are_accepted(path: Path) -> None:
    """Parsed as the command would, and taken by the method that the first line names."""
    name = command(path).split()[4]
    method = METHODS[name]
    groups = (*GROUPS, method.Options)
    values = build_parser("test", "", groups).parse_args(["--config", str(path)])
    data, _, encoder, optim, run, own = split_namespace(values, groups)
    check_options(optim, run)
    assert data.data in dataset_names()
    assert is_model(encoder.encoder.partition(".")[0])
    assert is_model_pretrained(encoder.encoder) or not encoder.pretrained
    method(own, data_info("ab", 40)).check(optim)
    chosen = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert all(getattr(optim, f.name) == chosen[f.name] for f in fields(OptimOptions) if f.name in chosen)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_command_names_the_recipe(path: Path) -> None:
    words = command(path).split()
    assert words[:4] == ["#", "python", "-m", "train"]
    assert ROOT / words[words.index("--config") + 1] == path
    text = path.read_text(encoding="utf-8")
    assert "Reached: " in text or "Not run here." in text
