"""Pages in one file: style, script, data and plotly.js inside, so that they open anywhere without a network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fgdemo.errors import UserError

STATIC = Path(__file__).parent / "static"

# Sent nowhere and fetched from nowhere, whatever a name in the data may have tried. Scripts run by their hash alone;
# plotly's WebGL compiles its shaders with `new Function`, which is what unsafe-eval permits.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-eval' {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script type="application/json" id="data">{data}</script>
<script>{library}</script>
<script>{script}</script>
</body>
</html>
"""


def html_page(title: str, body: str, data: Any, *, style: str, script: str) -> str:
    """A whole page, light or dark as the reader's system is.

    Args:
        title: plain text.
        body: HTML, in which every text from outside went through `escape`.
        data: JSON values for the script, in its constant `data`.
        style: CSS after static/page.css.
        script: JavaScript after plotly.js and static/page.js.

    Raises:
        UserError: plotly is not installed.
        ValueError: NaN or infinity in `data`.
    """
    library = plotly_js().read_text(encoding="utf-8")
    script = f"'use strict';\n{_static('page.js')}\n{script}"
    policy = _POLICY.format(hashes=" ".join(f"'{_sha256(code)}'" for code in (library, script)))
    return _PAGE.format(
        policy=policy,
        title=escape(title),
        style=f"{_static('page.css')}\n{style}",
        body=body,
        data=_json(data),
        library=library,
        script=script,
    )


def escape(value: Any) -> str:
    """Text for any place in HTML or in a quoted attribute."""
    # half a surrogate pair, which JSON can hold, is no character
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"))


def base64_array(values: np.ndarray, dtype: str) -> str:
    """The bytes of an array for `decode` of static/page.js: "<f4", "<u4" or "u1"."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")


def plotly_js() -> Path:
    """The plotly.min.js that the installed plotly package brings; plotly itself is not imported.

    Raises:
        UserError: plotly is not installed.
    """
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise UserError("Charts are drawn with plotly, which is not installed: pip install plotly.")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _json(data: Any) -> str:
    """JSON in which no text can end the element that holds it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _sha256(code: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii")
