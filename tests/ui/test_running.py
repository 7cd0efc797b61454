"""Work that its person may stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from support.digits_checkpoint import write_digits

import fgdemo.recluster
from fgdemo.ui.build import build
from fgdemo.ui.running import Running, Stopped
from fgdemo.ui.session import App


def test_a_session_stops_its_own_work_alone() -> None:
    running, seen = Running(), []
    with running.work("a", lambda *now: seen.append(now)) as mine, running.work("b") as other:
        mine(1, 3)
        assert running.stop("a")
        other(1, 3)
        with pytest.raises(Stopped):
            mine(2, 3)
    assert seen == [(1, 3)]
    assert not running.stop("a")


def test_new_work_is_not_stopped_by_what_stopped_the_last() -> None:
    running = Running()
    with running.work("a"):
        running.stop("a")
    with running.work("a") as progress:
        progress(1, 1)


def test_a_stopped_clustering_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_digits(tmp_path / "digits")
    page = build(App([tmp_path], saved=tmp_path / "saved", device="cpu"))
    own = {fn.name: fn.fn for fn in page.fns.values() if fn.fn and fn.fn.__module__ == "fgdemo.ui.recluster"}
    first = own["start"]("digits", "pca", [], gr.EventData(None, {"name": "digits"}))
    steps = first[7]
    begun, stopped = threading.Event(), threading.Event()
    real, calls = fgdemo.recluster.cluster, []

    def slow(x: np.ndarray, *given: object, **options: object) -> object:
        calls.append(len(x))
        begun.set()
        assert stopped.wait(60)
        return real(x, *given, **options)

    monkeypatch.setattr(fgdemo.recluster, "cluster", slow)
    request = gr.Request(session_hash="mine")
    results: list[object] = []

    def press() -> None:
        options = ("digits", [], "agglomerative", False, 2, 0, 0, 1, "pca", steps)
        results.append(own["again"](*options, lambda *at, **words: None, request))

    told: list[str] = []
    monkeypatch.setattr(gr, "Info", told.append)
    thread = threading.Thread(target=press)
    thread.start()
    assert begun.wait(60)
    own["end"](request)
    stopped.set()
    thread.join(60)
    assert results == [[gr.skip()] * len(first)]
    assert len(calls) == 1
    assert told == ["Stopped. The division of before stays."]
    own["end"](request)
    assert "Nothing runs" in told[1]
    after: Callable = own["again"]
    monkeypatch.setattr(fgdemo.recluster, "cluster", real)
    options = ("digits", [], "agglomerative", False, 2, 0, 0, 1, "pca", steps)
    assert len(after(*options, lambda *at, **words: None, request)[7]) == 2
