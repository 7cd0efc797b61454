from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest
from gradio.data_classes import ImageData
from PIL import Image

from fgdemo.errors import UserError
from fgdemo.ui.examples import COUNT, examples
from fgdemo.ui.image_input import UNREADABLE, Argument, Choice, ImageInput, integer, read_picture


@pytest.fixture(scope="module")
def image_input() -> ImageInput:
    with gr.Blocks():
        return ImageInput(buttons=["fullscreen"])


def test_a_picture_passes_as_the_file_it_is(image_input: ImageInput, tmp_path: Path):
    """Neither its mode nor its orientation is touched on the way."""
    path = tmp_path / "x.tif"
    Image.new("CMYK", (4, 3)).save(path)
    assert image_input.preprocess(ImageData(path=str(path), orig_name="x.tif")) == str(path)
    assert image_input.preprocess(None) is None


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"<svg/>"])
def test_what_is_no_picture_gets_the_sentence(image_input: ImageInput, tmp_path: Path, content: bytes):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(gr.Error) as refused:
        image_input.preprocess(ImageData(path=str(path), orig_name="x.png"))
    assert refused.value.message == UNREADABLE
    assert refused.value.print_exception is False


@pytest.mark.parametrize("payload", [{"url": "data:image/png;base64,AAAA"}, {"path": "x", "url": "data:,"}, {}])
def test_pictures_that_were_not_uploaded_are_refused(image_input: ImageInput, payload: dict):
    with pytest.raises(gr.Error, match="Upload the picture as a file"):
        image_input.preprocess(ImageData(**payload))


def test_the_page_gets_the_settings_of_its_own_components(image_input: ImageInput):
    config = image_input.get_config()
    assert config["buttons"] == ["fullscreen"]
    assert image_input.get_block_name() == "image"
    with gr.Blocks():
        assert "label" in Argument("top").get_config()


def test_a_choice_is_one_text():
    with gr.Blocks():
        choice = Choice(label="Class", choices=["a"])
    assert choice.preprocess("of another checkpoint") == "of another checkpoint"
    assert choice.preprocess(None) is None
    for payload in (["a"], 3, {"a": 1}):
        with pytest.raises(gr.Error, match="Class takes one text"):
            choice.preprocess(payload)


@pytest.mark.parametrize("value", [0, 11, True, 2.0, "3", [3], "x" * 1000])
def test_whole_numbers_only(value: object):
    with pytest.raises(UserError, match="n is a whole number from 1 to 10") as refused:
        integer("n", value, 5, least=1, most=10)
    assert len(str(refused.value)) < 100
    assert [integer("n", v, 5, least=1, most=10) for v in (None, 1, 10)] == [5, 1, 10]


def test_reading_a_picture(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"bytes")
    assert read_picture(str(tmp_path / "x")) == b"bytes"
    with pytest.raises(UserError, match="Choose a picture first"):
        read_picture(None)
    with pytest.raises(UserError, match="no longer held by the server"):
        read_picture(str(tmp_path / "gone"))


def test_examples_are_test_pictures_of_different_classes():
    found = examples("digits")
    assert len(found) == COUNT
    assert len({example.caption for example in found}) == COUNT
    assert all(example.image.size == (32, 32) for example in found)
    assert examples("digits") is found


@pytest.mark.parametrize("dataset", [None, "", "nobody knows", "imagefolder", "oxford_pets"])
def test_there_are_no_examples_of_data_that_has_to_be_fetched(dataset: str | None):
    assert examples(dataset) == ()


def test_photographs_that_travel_with_scikit_learn_stand_in_for_those_that_may_not():
    flower, other = examples("flowers102")
    assert {flower.image.size, other.image.size} == {(640, 427)}
    assert flower.image.tobytes() != other.image.tobytes()
    assert "no flower" in other.caption
    assert "no flower" not in flower.caption
