"""When a picture counts as unlike anything in the gallery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fgdemo.checkpoint import read_checkpoint
from fgdemo.errors import UserError

FALSE_ALARMS = 0.05
"""Share of ordinary pictures that the flag is set for."""


def novelty_flag(distances: np.ndarray, pictures: str | None = None) -> dict[str, Any]:
    """Where the flag is set: the distance to the nearest gallery picture that only FALSE_ALARMS of these exceed.

    Args:
        distances: (n,) cosine distances of pictures like those to come.
        pictures: what these are, where they are not validation pictures.
    """
    return {
        "score": "cosine distance to the nearest gallery picture",
        "threshold": float(np.quantile(distances, 1 - FALSE_ALARMS)),
        "quantile": 1 - FALSE_ALARMS,
        "n": len(distances),
        "measured": [],
        **({} if pictures is None else {"pictures": pictures}),
    }


def borrowed_flag(run: Path, dataset: str, encoder: str) -> dict[str, Any]:
    """The flag of another run's checkpoint, for a run that trains on its validation pictures.

    A run has no distance of its own to go by: every picture that it holds has been trained on, and lies closer to its
    neighbours than any new one will.

    Args:
        run: folder of a run that kept its validation pictures out.
        dataset, encoder: what both have to share for a distance to mean the same.

    Raises:
        UserError: no checkpoint there, one of something else, or one without a flag.
    """
    folder = run / "checkpoint"
    if not folder.is_dir():
        raise UserError(
            f"--novelty-from {run} holds no checkpoint: give the folder of a finished run of the same options without "
            "--include-val."
        )
    config = read_checkpoint(folder).config
    theirs = (config["fgdemo"]["training"].get("dataset"), config["fgdemo"]["options"].get("encoder"))
    if theirs != (dataset, encoder):
        raise UserError(
            f"--novelty-from {run} was trained on {theirs[0]} with {theirs[1]}, not on {dataset} with {encoder}: its "
            "distances say nothing here."
        )
    flag = config["fgdemo"]["novelty"]
    if flag is None:
        raise UserError(f"--novelty-from {run} has no flag itself: it held no validation pictures out.")
    return {**flag, "measured": [], "pictures": "validation pictures of a run of the same kind that held them out"}
