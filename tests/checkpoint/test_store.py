from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fgdemo.checkpoint import list_checkpoints, read_checkpoint, write_checkpoint
from fgdemo.errors import UserError
from fgdemo.gallery import Gallery

from .conftest import config, gallery, subclasses, weights, write

FILES = {"config.json", "model.safetensors", "gallery.safetensors", "subclasses.json", "README.md"}


def test_round_trip_keeps_every_value(tmp_path: Path):
    written = write(tmp_path / "small")
    assert {file.name for file in written.iterdir()} == FILES
    assert os.listdir(tmp_path) == ["small"]
    checkpoint = read_checkpoint(written)
    assert checkpoint.subclasses == subclasses()
    assert checkpoint.revision is None
    for key, value in config().items():
        if key != "fgdemo":
            assert checkpoint.config[key] == value
    stored = checkpoint.config["fgdemo"]
    assert {key: stored[key] for key in config()["fgdemo"]} == config()["fgdemo"]
    assert stored["schema"] == 1
    assert stored["versions"]["torch"] == torch.__version__.split("+")[0]
    for name, tensor in weights().items():
        assert torch.equal(checkpoint.weights()[name], tensor)
    for name, tensor in gallery().to_tensors().items():
        assert torch.equal(checkpoint.gallery_tensors()[name], tensor)
        assert checkpoint.gallery_tensors()[name].dtype == tensor.dtype


def test_files_have_the_usual_mode(tmp_path: Path):
    before = os.umask(0o027)
    try:
        written = write(tmp_path / "small")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in written.iterdir()} == {0o640}
    assert written.stat().st_mode & 0o777 == 0o750


def test_float16_is_stored_small_and_read_wide(tmp_path: Path):
    written = write(tmp_path / "half", dtype="float16")
    on_disk = load_file(written / "model.safetensors")
    assert on_disk["head.weight"].dtype == torch.float16
    assert on_disk["bn.num_batches_tracked"].dtype == torch.int64
    read = read_checkpoint(written).weights()
    assert read["head.weight"].dtype == torch.float32
    assert torch.equal(read["head.weight"], weights()["head.weight"].half().float())
    assert read["bn.num_batches_tracked"] == 11


def test_what_cannot_be_stored_is_refused_and_leaves_nothing(tmp_path: Path):
    for value, reason in ((70000.0, "overflows float16"), (float("nan"), "diverged")):
        with pytest.raises(UserError, match=rf'"w" is not finite.*{reason}'):
            write(tmp_path / "x", weights={"w": torch.tensor([value])}, dtype="float16")
    with pytest.raises(UserError, match="float32, float16"):
        write(tmp_path / "x", dtype="int8")
    broken = config()
    broken["fgdemo"]["training"]["seconds"] = float("nan")
    with pytest.raises(UserError, match=r"config\.json.*cannot be stored"):
        write(tmp_path / "x", config=broken)
    incomplete = config()
    del incomplete["fgdemo"]["embedding"]["dim"]
    with pytest.raises(UserError, match=r"fgdemo\.embedding\.dim"):
        write(tmp_path / "x", config=incomplete)
    assert os.listdir(tmp_path) == []


def test_tied_and_transposed_weights_are_stored(tmp_path: Path):
    table = torch.arange(6.0).reshape(2, 3)
    read = read_checkpoint(write(tmp_path / "x", weights={"a": table, "b": table, "t": table.T})).weights()
    assert torch.equal(read["a"], read["b"])
    assert torch.equal(read["t"], table.T)


def test_the_given_parts_are_not_changed(tmp_path: Path):
    given, parts = config(), subclasses()
    write(tmp_path / "x", config=given, subclasses=parts)
    assert given == config()
    assert parts == subclasses()


def test_access_tokens_do_not_travel(tmp_path: Path):
    secret = "hf_" + "aB3" * 11
    leaking = config()
    leaking["fgdemo"]["training"]["command"] = f"HF_TOKEN={secret} python -m train classify"
    written = write(tmp_path / "x", config=leaking)
    assert not any(secret.encode() in file.read_bytes() for file in written.iterdir())


def test_an_existing_checkpoint_is_never_touched(tmp_path: Path):
    first = write(tmp_path / "x")
    before = {file.name: file.read_bytes() for file in first.iterdir()}
    names = [write(tmp_path / name).name for name in ("x", "x", "x-v2", "x-v7", "x-v7")]
    assert names == ["x-v2", "x-v3", "x-v4", "x-v7", "x-v8"]
    assert {file.name: file.read_bytes() for file in first.iterdir()} == before
    (tmp_path / "file").write_text("mine")
    assert write(tmp_path / "file").name == "file-v2"
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert write(tmp_path / "empty").name == "empty"


def test_abandoned_temporary_folders_are_removed_and_living_ones_kept(tmp_path: Path):
    old, young = tmp_path / ".x.tmp-old", tmp_path / ".x.tmp-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    write(tmp_path / "x")
    assert sorted(os.listdir(tmp_path)) == [".x.tmp-young", "x"]
    assert [entry.name for entry in list_checkpoints(tmp_path)] == ["x"]


def test_a_file_in_place_of_the_parent_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"{tmp_path / 'file' / 'x'} cannot be written"):
        write(tmp_path / "file" / "x")


def run_python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    helper = textwrap.dedent(
        f"""
        import importlib.util as u, sys
        spec = u.spec_from_file_location("parts", {str(Path(__file__).with_name("conftest.py"))!r})
        parts = u.module_from_spec(spec); spec.loader.exec_module(parts)
        """
    )
    return subprocess.Popen(
        [sys.executable, "-c", helper + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.skipif(sys.platform == "win32", reason="limits and users are POSIX features")
def test_no_room_or_no_permission_is_one_sentence_and_leaves_nothing(tmp_path: Path):
    # A limit on the size of a file makes the same write fail part-way that a full disk would.
    process = run_python(
        """
        import os, resource, signal, torch
        from fgdemo.errors import UserError

        def attempt(name):
            try:
                parts.write(parts.Path(sys.argv[1]) / name, weights={"w": torch.ones(10_000)})
            except UserError as error:
                print(error)

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        attempt("large")
        if os.geteuid() == 0:
            os.seteuid(65534)
        else:
            os.chmod(sys.argv[1], 0o555)
        attempt("closed")
        """,
        tmp_path,
    )
    out, err = process.communicate(timeout=100)
    tmp_path.chmod(0o755)
    assert process.returncode == 0, err
    sentences = out.splitlines()
    assert len(sentences) == 2
    for name, reason, sentence in zip(
        ("large", "closed"), ("File too large", "Permission denied"), sentences, strict=True
    ):
        assert sentence.startswith(f"Nothing was saved: {tmp_path / name} cannot be written (")
        assert reason in sentence
        assert sentence.endswith("free some space or choose another folder.")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is a POSIX feature")
def test_sigkill_at_any_moment_leaves_only_whole_checkpoints(tmp_path: Path):
    process = run_python(
        """
        import os, random, signal, time
        from fgdemo.checkpoint import list_checkpoints, read_checkpoint

        random.seed(0)
        for name in ("warm", "timed"):
            began = time.monotonic()
            parts.write(parts.Path(sys.argv[1]) / name)
        took = time.monotonic() - began
        whole = unfinished = 0
        for round in range(50):
            folder = parts.Path(sys.argv[1]) / str(round)
            child = os.fork()
            if child == 0:
                while True:
                    parts.write(folder / "x")
            time.sleep(took * random.uniform(0.1, 3))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            names = os.listdir(folder) if folder.exists() else []
            shown = {name for name in names if not name.startswith(".")}
            entries = list_checkpoints(folder)
            assert {entry.name for entry in entries} == shown
            for entry in entries:
                read_checkpoint(entry.path)
            whole += len(entries)
            unfinished += len(names) - len(shown)
        print(whole, unfinished)
        """,
        tmp_path,
    )
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    whole, unfinished = map(int, out.split())
    # Both outcomes must have been met for the rounds to have shown anything.
    assert whole > 0
    assert unfinished > 0


def test_reading_is_lazy_and_private(pristine: Path):
    before = (pristine / "gallery.safetensors").read_bytes()
    mapped = Gallery.from_checkpoint(read_checkpoint(pristine))
    mapped.embeddings[0, 0] = 7
    assert (pristine / "gallery.safetensors").read_bytes() == before


def test_a_snapshot_of_the_hub_cache_knows_its_commit(tmp_path: Path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert read_checkpoint(write(tmp_path / "snapshots" / commit)).revision == commit
    assert read_checkpoint(write(tmp_path / "snapshots" / "mine")).revision is None


def test_list_passes_over_the_broken_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    titled = config()
    titled["fgdemo"]["title"] = "My flowers"
    write(tmp_path / "a" / "two", config=titled)
    write(tmp_path / "a" / "one")
    write(tmp_path / "b" / "one")
    (write(tmp_path / "b" / "torn") / "model.safetensors").unlink()
    (tmp_path / "b" / "no checkpoint").mkdir()
    with caplog.at_level(logging.WARNING):
        entries = list_checkpoints(tmp_path / "a", tmp_path / "b", tmp_path / "nowhere")
    assert [(entry.name, entry.path.parent.name, entry.title) for entry in entries] == [
        ("one", "a", "classify on scenes (some_net)"),
        ("two", "a", "My flowers"),
        ("one", "b", "classify on scenes (some_net)"),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        f"Left out the checkpoint torn: The folder {tmp_path / 'b' / 'torn'} is not a complete checkpoint: "
        "model.safetensors is missing; copy or export it again."
    ]


def test_json_files_are_readable_text(pristine: Path):
    text = (pristine / "config.json").read_text(encoding="utf-8")
    assert "été" in text
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


def test_a_given_card_is_kept(tmp_path: Path):
    written = write_checkpoint(
        tmp_path / "x",
        config=config(),
        weights=weights(),
        gallery=gallery().to_tensors(),
        subclasses=subclasses(),
        card="# Mine\n",
    )
    assert read_checkpoint(written).card == "# Mine\n"
