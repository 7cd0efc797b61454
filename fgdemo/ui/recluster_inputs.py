"""What the Re-cluster tab takes and gives: components, and checks of what a browser or a program sent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import gradio as gr

from fgdemo.errors import UserError

# A file made in the page from text: nothing lies on the server where another session could ask for it.
_SAVE_FILE = """
watch('value', () => {
  const file = props.value;
  if (!file || !file.text) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([file.text], { type: file.type }));
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
"""


class Range(gr.Slider):
    """A slider whose range changes with the checkpoint, while Gradio holds values to the range it was built with."""

    def get_block_name(self) -> str:
        return "slider"

    def preprocess(self, payload: Any) -> Any:
        return int(payload) if isinstance(payload, float) and payload.is_integer() else payload


class Classes(gr.Dropdown):
    """Classes by id, checked by the callback; see `Choice` for why not by Gradio."""

    def get_block_name(self) -> str:
        return "dropdown"

    def preprocess(self, payload: Any) -> Any:
        return payload


class Download(gr.HTML):
    """Hands {"name", "type", "text", "step"} to the browser as a download; `step` tells two equal files apart."""

    def __init__(self) -> None:
        super().__init__(html_template="", js_on_load=_SAVE_FILE, visible="hidden", apply_default_css=False)

    def get_block_name(self) -> str:
        return "html"

    def postprocess(self, value: Any) -> Any:
        return value


def one_of(name: str, value: str | None, known: Collection[str], default: str) -> str:
    """The value, or the default for None.

    Raises:
        UserError: not one of those known.
    """
    if value is None:
        return default
    if value not in known:
        raise UserError(f"The {name} {value[:40]!r} is unknown; choose one of {', '.join(known)}.")
    return value


def class_ids(chosen: Any, class_names: Sequence[str]) -> list[int]:
    """Class ids from names or ids that a browser or a program sent; empty means all.

    Raises:
        UserError: no list, too long, or an unknown class.
    """
    if chosen is None:
        return []
    if not isinstance(chosen, list) or len(chosen) > len(class_names):
        raise UserError(f"classes is a list of at most {len(class_names)} class names or ids.")
    known = {name: class_id for class_id, name in enumerate(class_names)}
    found = []
    for item in chosen:
        if isinstance(item, str) and item in known:
            found.append(known[item])
        elif isinstance(item, int) and not isinstance(item, bool) and 0 <= item < len(class_names):
            found.append(item)
        else:
            shown = repr(item)
            raise UserError(f"There is no class {shown if len(shown) < 60 else 'of that name'} in this checkpoint.")
    return found
