"""Resolving what a person typed; the Hub's part against a small server that speaks its protocol."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from fgdemo.checkpoint.hub import resolve
from fgdemo.checkpoint.schema import FILES
from fgdemo.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Serves one good model, one without our files, and the refusals of the real Hub."""

    files: ClassVar[dict[str, bytes]] = {}
    requested: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.requested.append(path)
        if path.startswith("/api/models/team/good/revision/"):
            revision = path.rpartition("/")[2]
            if revision not in ("main", "v1"):
                return self.answer(404, b"{}", error="RevisionNotFound")
            return self.answer(200, json.dumps({"id": "team/good", "sha": COMMIT, "siblings": []}).encode())
        if path == f"/api/models/team/good/tree/{COMMIT}":
            return self.answer(200, json.dumps([self.entry(name) for name in self.files]).encode())
        if path == "/api/models/team/other/revision/main":
            return self.answer(200, json.dumps({"id": "team/other", "sha": COMMIT, "siblings": []}).encode())
        if path == f"/api/models/team/other/tree/{COMMIT}":
            return self.answer(200, json.dumps([self.entry("pytorch_model.bin")]).encode())
        if path.startswith(f"/team/good/resolve/{COMMIT}/"):
            content = self.files[path.rpartition("/")[2]]
            return self.answer(200, content, etag=hashlib.sha1(content).hexdigest())
        if "team/gated" in path:
            return self.answer(403, b"{}", error="GatedRepo")
        if "team/down" in path:
            return self.answer(500, b"<html>oops</html>")
        if "team/portal" in path:
            return self.answer(200, b"<html>log in to the hotel's network</html>")
        return self.answer(404, b"{}", error="RepoNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def entry(self, name: str) -> dict[str, object]:
        content = self.files.get(name, b"x")
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def answer(self, status: int, body: bytes, *, error: str | None = None, etag: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub(pristine: Path) -> Iterator[str]:
    Hub.files = {file.name: file.read_bytes() for file in pristine.iterdir()} | {"training_log.txt": b"big"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def resolve_elsewhere(folder: Path, environment: dict[str, str], *asked: str) -> list[str]:
    """Each answer, a path or the sentence of a refusal; in a process, as the Hub's settings are read at import."""
    code = """
import sys
from fgdemo.checkpoint import read_checkpoint
from fgdemo.checkpoint.hub import resolve
from fgdemo.errors import UserError
for text in sys.argv[1:]:
    try:
        path = resolve(text)
        print(path, read_checkpoint(path).revision)
    except UserError as error:
        print(error)
"""
    folder.mkdir(exist_ok=True)
    defaults = {
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-c", code, *asked],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, "HF_HOME": str(folder / "home"), **defaults, **environment},
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    answers = result.stdout.splitlines()
    assert len(answers) == len(asked)
    return answers


def test_hub_answers(hub: str, tmp_path: Path):
    asked = ["team/good", "hf://team/good@v1", f"team/good@{COMMIT}", "team/good@v9", "team/gated", "team/missing"]
    asked += ["team/other", "team/portal", "team/down"]
    answers = dict(zip(asked, resolve_elsewhere(tmp_path, {"HF_ENDPOINT": hub}, *asked), strict=True))
    for good in asked[:3]:
        path, _, revision = answers[good].rpartition(" ")
        assert revision == COMMIT
        assert sorted(os.listdir(path)) == sorted(FILES)
    assert not any("training_log" in path for path in Hub.requested)
    assert answers["team/good@v9"].startswith("The model team/good has no revision v9;")
    assert answers["team/gated"].startswith("The model team/gated is gated;")
    assert "no model of that name on the Hub that you may read" in answers["team/missing"]
    assert "is not a complete checkpoint of fgdemo: it has no config.json" in answers["team/other"]
    assert "team/portal cannot be downloaded" in answers["team/portal"]
    assert "the Hub cannot be reached" in answers["team/down"]

    cached, uncached = resolve_elsewhere(tmp_path, {"HF_HUB_OFFLINE": "1"}, "team/good", "team/else")
    assert cached == answers["team/good"]
    assert "There is no folder team/else here, and the Hub cannot be reached" in uncached


def test_a_folder_beats_the_hub_and_hf_forces_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "team" / "good").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("team/good") == Path("team/good")
    assert resolve(tmp_path / "team") == tmp_path / "team"
    with pytest.raises(UserError, match="has no revisions; leave out revision v1"):
        resolve("team/good", revision="v1")
    with pytest.raises(UserError, match="names the revision v2, but v1 was asked for"):
        resolve("hf://team/good@v2", revision="v1")


@pytest.mark.parametrize(
    "typo", ["/no/where", "./x", "~/x", "../x", "scenes-classify", "a/b/c", "team/god", "nowhere/", "C:\\models\\x"]
)
def test_a_mistyped_folder_is_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typo: str):
    (tmp_path / "team" / "good").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"The checkpoint folder .* does not exist"):
        resolve(typo)


def test_nothing_named():
    with pytest.raises(UserError, match="No checkpoint was named"):
        resolve(" ")


def test_a_file_is_not_a_folder(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is a file, not a folder"):
        resolve(tmp_path / "config.json")


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://name", "hf://datasets/team/good", "hf://team/good/config.json", "spaces/demo", "team/a..b"],
)
def test_what_cannot_be_a_model_on_the_hub(text: str):
    with pytest.raises(UserError, match=r"is not a model on the Hub|nor a possible id on the Hub"):
        resolve(text)
