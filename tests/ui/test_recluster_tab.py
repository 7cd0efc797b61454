"""The callbacks of the Re-cluster tab in the orders in which a browser may call them."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr
import pytest
from support.digits_checkpoint import write_digits
from tiny_checkpoint import write_tiny

from fgdemo.ui.build import build
from fgdemo.ui.session import App

SCATTER, CAPTION, FIGURES, HISTORY = 0, 1, 3, 7
OPTIONS = ([], "kmeans", False, 3, 0, 0, 1, "pca")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """`tab("start", ...)` calls the tab's callback of that name."""
    folder = tmp_path_factory.mktemp("tab")
    write_digits(folder / "digits")
    write_tiny(folder / "tiny")
    page = build(App([folder], saved=folder / "saved", device="cpu"))
    own = {fn.name: fn.fn for fn in page.fns.values() if fn.fn and fn.fn.__module__ == "fgdemo.ui.recluster"}
    return lambda name, *arguments: own[name](*arguments)


def shown(name: str) -> gr.EventData:
    return gr.EventData(None, {"name": name})


@pytest.fixture
def run(tab: Callable) -> list:
    """What the page holds after its first view and one press of Re-cluster."""
    first = tab("start", "digits", "pca", [], shown("digits"))
    assert "as the checkpoint has them" in first[CAPTION]
    after = tab("again", "digits", *OPTIONS, first[HISTORY])
    assert "<table" in after[FIGURES]
    assert len(after[HISTORY]) == 2
    return after


def test_the_same_checkpoint_again_keeps_the_last_step(tab: Callable, run: list) -> None:
    # a page that loads says its checkpoint more than once, and may ask for its points more than once
    changed = tab("change_checkpoint", "digits", run[HISTORY])
    assert changed[SCATTER]["code"] == run[SCATTER]["code"]
    assert changed[SCATTER]["pending"] == "digits"
    assert changed[FIGURES] == run[FIGURES]
    assert "value" not in changed[-2]
    late = tab("start", "digits", "pca", changed[HISTORY], shown("digits"))
    assert late[SCATTER]["code"] == run[SCATTER]["code"]
    assert late[FIGURES] == run[FIGURES]
    undone = tab("step_back", "pca", late[HISTORY])
    assert "as the checkpoint has them" in undone[CAPTION]


def test_another_checkpoint_starts_afresh(tab: Callable, run: list) -> None:
    changed = tab("change_checkpoint", "tiny", run[HISTORY])
    assert changed[SCATTER] == {"pending": "tiny"}
    assert changed[HISTORY] == []
    assert changed[-2]["value"] == []
    # the scatter still asks for the checkpoint before
    assert all(output == gr.skip() for output in tab("start", "tiny", "pca", [], shown("digits")))
    # a run of the checkpoint before ends now, and its steps are of no use to this one
    first = tab("start", "tiny", "pca", run[HISTORY], shown("tiny"))
    assert first[SCATTER]["name"] == "tiny"
    assert len(first[HISTORY]) == 1


def test_steps_that_are_no_longer_held_start_afresh(tab: Callable) -> None:
    assert tab("change_checkpoint", "digits", ["gone"])[SCATTER] == {"pending": "digits"}
    first = tab("start", "digits", "pca", ["gone"], shown("digits"))
    assert "as the checkpoint has them" in first[CAPTION]
    assert len(first[HISTORY]) == 1
