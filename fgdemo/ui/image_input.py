"""Inputs that say in one sentence what is wrong with what they were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from fgdemo.errors import UserError

UNREADABLE = "Not a readable image: choose a JPEG, PNG, WebP, GIF, BMP or TIFF file of at most 10 MB."


class ImageInput(gr.Image):
    """A picture as the path of an uploaded file, whose header alone Gradio has read.

    Pixels are decoded by `fgdemo.data.open_image`, which caps their number and keeps orientation and mode in its
    own hands. Pictures inside the request's JSON (``data:`` URLs) would pass by the limit on uploads: refused.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(type="filepath", image_mode=None, format="png", **kwargs)

    def get_config(self, cls: type | None = None) -> dict[str, Any]:
        # Gradio reads the names of what the page gets from the signature of __init__.
        return super().get_config(cls or gr.Image)

    def get_block_name(self) -> str:
        return "image"

    def preprocess(self, payload: Any) -> str | None:
        if payload is None:
            return None
        if (payload.url or "").startswith("data:") or not payload.path:
            raise gr.Error("Upload the picture as a file.", print_exception=False)
        try:
            path = super().preprocess(payload)
        except gr.Error:
            raise
        except Exception as error:  # Pillow raises nearly every built-in exception on damaged files
            raise gr.Error(UNREADABLE, print_exception=False) from error
        if not isinstance(path, str):
            raise gr.Error(UNREADABLE, print_exception=False)
        return path


class Choice(gr.Dropdown):
    """A dropdown of one text, whose callback checks the value.

    Its choices change with the checkpoint while Gradio compares with those it was built with, in the words of a
    programmer.
    """

    def get_block_name(self) -> str:
        return "dropdown"

    def preprocess(self, payload: Any) -> str | None:
        if payload is None or isinstance(payload, str):
            return payload
        raise gr.Error(f"{self.label} takes one text.", print_exception=False)

    def api_info(self) -> dict[str, Any]:
        return {"type": "string"}


class Argument(gr.JSON):
    """An optional argument of an API endpoint: any JSON value, checked by the callback, None when not given."""

    def __init__(self, label: str) -> None:
        super().__init__(label=label, visible=False)

    def get_config(self, cls: type | None = None) -> dict[str, Any]:
        return super().get_config(cls or gr.JSON)

    def get_block_name(self) -> str:
        return "json"

    def preprocess(self, payload: Any) -> Any:
        return getattr(payload, "root", payload)


def integer(name: str, value: Any, default: int, *, least: int, most: int | None = None) -> int:
    """An optional whole number of a request.

    Raises:
        UserError: anything else, or out of range.
    """
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        shown = repr(value)
        raise UserError(f"{name} is a whole number {span}, not {shown if len(shown) < 40 else 'that'}.")
    return value


def read_picture(path: str | None) -> bytes:
    """The bytes of an uploaded file, which `open_image` refuses without naming where the server keeps it.

    Raises:
        UserError: no picture was chosen, or it is no longer there.
    """
    if path is None:
        raise UserError("Choose a picture first.")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError("The picture is no longer held by the server; choose it again.") from error
