"""Rulers: each one file with options, figures and a table. A new one is a file here and a name in `RULERS`."""

from train.evaluation import discovery, examples, faithfulness, few_shot, parts, probe, retrieval
from train.evaluation.ruler import Ruler
from train.evaluation.subject import Subject

RULERS: tuple[Ruler, ...] = (
    probe.RULER,
    retrieval.RULER,
    discovery.RULER,
    few_shot.RULER,
    faithfulness.RULER,
    parts.RULER,
    examples.RULER,
)

__all__ = ["RULERS", "Ruler", "Subject"]
