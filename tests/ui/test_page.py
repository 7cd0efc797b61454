"""How the page is put together and started, without serving it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ROOT, environment
from tiny_checkpoint import write_tiny

import app as entry
from fgdemo.ui.build import build, launch_options
from fgdemo.ui.session import App


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("page")
    write_tiny(folder / "tiny")
    return build(App([folder], saved=folder / "saved", device="cpu"))


def test_only_the_endpoints_are_public(page):
    public = {fn.api_name for fn in page.fns.values() if fn.fn and fn.api_visibility == "public"}
    assert public == {"classify", "explain", "prototypes", "recluster"}


def test_what_runs_a_model_waits_for_each_other(page):
    endpoints = [fn for fn in page.fns.values() if fn.fn and fn.api_visibility == "public"]
    assert {fn.concurrency_id for fn in endpoints} == {"model"}
    assert {fn.concurrency_limit for fn in endpoints} == {1}


def test_no_plot_component_shares_the_page_with_our_own_plotly(page):
    assert "plot" not in {block.get_block_name() for block in page.blocks.values()}


def test_the_page_asks_no_other_server_and_shows_no_inner_errors():
    options = launch_options()
    assert (options["show_error"], options["strict_cors"], options["allowed_paths"]) == (False, True, [])
    style = Path(options["css_paths"]).read_text(encoding="utf-8")
    assert "http" not in style
    assert "@import" not in style
    assert options["theme"]._stylesheets == []


def test_importing_the_interface_turns_statistics_off():
    code = "import fgdemo.ui, os; print(os.environ['GRADIO_ANALYTICS_ENABLED'])"
    clean = {k: v for k, v in environment().items() if k != "GRADIO_ANALYTICS_ENABLED"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_the_command_line_serves_this_machine_alone_by_default(monkeypatch: pytest.MonkeyPatch):
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    options = entry.parse([])
    assert (options.host, options.port, options.share, options.device) == ("127.0.0.1", 7860, False, "auto")
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    assert entry.parse(["--port", "81"]).host == "0.0.0.0"
    assert os.path.samefile(entry.CHECKPOINTS.parent, ROOT)
