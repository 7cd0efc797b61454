from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from tiny_checkpoint import write_tiny

import fgdemo.predict
from fgdemo.checkpoint import read_checkpoint
from fgdemo.errors import UserError
from fgdemo.ui import session
from fgdemo.ui.session import App, quietly, reported, user_folder


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundled")
    write_tiny(folder / "one")
    write_tiny(folder / "two", dtype="float16")
    return folder


@pytest.fixture
def app(bundled: Path, tmp_path: Path) -> App:
    return App([bundled], saved=tmp_path / "saved", device="cpu")


def test_user_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FGDEMO_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "checkpoints"
    monkeypatch.delenv("FGDEMO_HOME")
    assert user_folder() == Path.home() / ".local" / "share" / "fgdemo" / "checkpoints"


def test_names_are_listed_in_order_and_nothing_else_opens(app: App):
    assert list(app.checkpoints()) == ["one", "two"]
    assert app.name(None) == "one"
    for wrong in ("three", "../one", "/etc", "", 3, ["one"]):
        with pytest.raises(UserError, match="choose one of one, two"):
            app.classifier(wrong)


def test_a_checkpoint_written_later_is_found_by_its_name(tmp_path: Path):
    app = App([tmp_path / "bundled"], saved=tmp_path / "saved", device="cpu")
    with pytest.raises(UserError, match="There is no checkpoint in"):
        app.name("one")
    for name in ("one", "two"):
        write_tiny(tmp_path / "bundled" / name)
        assert app.name(name) == name


def test_what_a_newcomer_meets_comes_first(tmp_path: Path):
    for name in ("ants", "flowers102-voting", "scenes-classify", "wasps"):
        write_tiny(tmp_path / "bundled" / name)
    app = App([tmp_path / "bundled"], saved=tmp_path / "saved", device="cpu")
    assert list(app.checkpoints()) == ["scenes-classify", "flowers102-voting", "ants", "wasps"]


def test_without_any_checkpoint_it_says_where_it_looked(tmp_path: Path):
    with pytest.raises(UserError, match=r"There is no checkpoint in .*nowhere"):
        App([tmp_path / "nowhere"], saved=tmp_path / "saved").name(None)


def test_the_named_checkpoint_comes_first_and_only_once(bundled: Path, tmp_path: Path):
    inside = App([bundled], saved=tmp_path, first=str(bundled / "two") + "/")
    assert list(inside.checkpoints()) == ["two", "one"]
    elsewhere = write_tiny(tmp_path / "elsewhere" / "one")
    outside = App([bundled], saved=tmp_path / "saved", first=str(elsewhere))
    assert list(outside.checkpoints()) == ["one", f"{bundled.name}/one", "two"]
    assert outside.classifier(None).checkpoint.directory == elsewhere
    with pytest.raises(UserError, match="does not exist"):
        App([bundled], saved=tmp_path, first="./missing").checkpoints()


def test_a_checkpoint_is_loaded_once_for_all_threads_and_two_are_kept(
    app: App, bundled: Path, monkeypatch: pytest.MonkeyPatch
):
    loads = []
    real = fgdemo.predict.load

    def counted(path: Path, **options):
        loads.append(path.name)
        return real(path, **options)

    monkeypatch.setattr(fgdemo.predict, "load", counted)
    found = []
    threads = [threading.Thread(target=lambda: found.append(app.classifier("one"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["one"]
    assert len({id(classifier) for classifier in found}) == 1
    write_tiny(app.saved / "three")
    app.checkpoints(refresh=True)
    for name in ("two", "one", "three", "one", "two"):
        app.classifier(name)
    assert loads == ["one", "two", "three", "two"]


def test_what_cannot_be_loaded_is_tried_again(tmp_path: Path):
    path = write_tiny(tmp_path / "bundled" / "one")
    app = App([path.parent], saved=tmp_path / "saved", device="cpu")
    weights = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(weights[:-1])
    app.preload().join()
    with pytest.raises(UserError, match=r"^one/model\.safetensors"):
        app.classifier("one")
    (path / "model.safetensors").write_bytes(weights)
    assert app.classifier("one").classes


def test_saving_makes_a_new_version_and_leaves_the_bundled_one(app: App, bundled: Path):
    def digests() -> list[str]:
        return [hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(bundled.rglob("*")) if f.is_file()]

    before = digests()
    gallery = app.classifier("two").gallery
    names = [app.save("two", gallery), app.save("two", gallery), app.save("two-v2", gallery)]
    assert names == ["two-v2", "two-v3", "two-v4"]
    assert list(app.checkpoints()) == ["one", "two", "two-v2", "two-v3", "two-v4"]
    assert digests() == before
    saved = read_checkpoint(app.saved / "two-v2")
    source = read_checkpoint(bundled / "two")
    assert all(torch.equal(tensor, saved.weights()[name]) for name, tensor in source.weights().items())
    assert (app.saved / "two-v2" / "model.safetensors").stat().st_size == (
        bundled / "two" / "model.safetensors"
    ).stat().st_size
    assert np.array_equal(app.classifier("two-v2").gallery.embeddings, gallery.embeddings)
    assert {k: v for k, v in saved.config["fgdemo"].items() if k != "sha256"} == {
        k: v for k, v in source.config["fgdemo"].items() if k != "sha256"
    }


def test_saving_where_nothing_can_be_written_says_so(bundled: Path, tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    app = App([bundled], saved=blocked / "checkpoints", device="cpu")
    with pytest.raises(UserError, match="Nothing was saved"):
        app.save("one", app.classifier("one").gallery)


def test_the_picker_offers_what_is_there_now(app: App):
    assert app.picker_update() | {"choices": None} == gr.update(choices=None, value="one")
    write_tiny(app.saved / "three")
    update = app.picker_update("three")
    assert update["value"] == "three"
    assert update["choices"] == ["one", "two", "three"]


def test_results_are_kept_until_many_newer_ones_came(app: App, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, "_KEPT", 2)
    first, second = app.keep("a"), app.keep("b")
    assert app.recall(first) == "a"
    app.keep("c")
    assert app.recall(first) == "a"
    for gone in (second, "never", None):
        with pytest.raises(UserError, match="run it again"):
            app.recall(gone)


def test_once_computes_once_for_a_key(app: App):
    made = []
    results = [app.once((key, 1), lambda: made.append(1) or len(made)) for key in "aab"]
    assert results == [1, 1, 2]


@pytest.mark.parametrize(
    ("text", "name"),
    [("user/name", "name"), ("hf://user/name@refs/pr/1", "name"), ("user/name@v1.0", "name"), ("name", "name")],
)
def test_own_name_of_a_hub_id(text: str, name: str):
    assert session._own_name(text) == name


def test_own_name_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "at@home" / "birds"
    folder.mkdir(parents=True)
    assert session._own_name(f"{folder}/") == "birds"
    monkeypatch.chdir(folder)
    assert session._own_name(".") == "birds"


def test_reported_and_quietly():
    def fail() -> str:
        raise UserError("One sentence.")

    with pytest.raises(gr.Error) as shown:
        reported(fail)()
    assert shown.value.message == "One sentence."
    assert shown.value.print_exception is False
    assert quietly(fail, "nothing")() == "nothing"
    assert reported(lambda x: x)(3) == 3
