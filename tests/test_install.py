"""`pip install .` gives the library alone, usable from another folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from support.commands import ROOT, environment


def test_the_library_installs_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "requirements.txt", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("fgdemo", "train", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, env=environment())
    assert {path.name for path in target.iterdir() if path.suffix != ".dist-info"} == {"fgdemo"}
    shipped = {path.relative_to(ROOT / "fgdemo") for path in (ROOT / "fgdemo").rglob("*") if path.suffix != ".pyi"}
    shipped = {path for path in shipped if "__pycache__" not in path.parts}
    assert shipped <= {path.relative_to(target / "fgdemo") for path in (target / "fgdemo").rglob("*")}

    code = (
        "import sys; sys.modules['train'] = None\n"
        "import fgdemo, fgdemo.predict, fgdemo.recluster, fgdemo.ui.theme\n"
        "from fgdemo.data import dataset_names\n"
        "print(fgdemo.__file__, fgdemo.__version__, dataset_names())\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(target)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert out.startswith(str(target))
    assert "scenes" in out
