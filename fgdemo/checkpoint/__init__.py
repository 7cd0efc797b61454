"""The checkpoint format: a directory of five files, the same bytes on disk and on the Hub."""

from fgdemo.checkpoint.card import model_card
from fgdemo.checkpoint.schema import SCHEMA_VERSION, title, validate_config, validate_subclasses
from fgdemo.checkpoint.store import (
    Checkpoint,
    CheckpointEntry,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)

__all__ = [
    "SCHEMA_VERSION",
    "Checkpoint",
    "CheckpointEntry",
    "list_checkpoints",
    "model_card",
    "read_checkpoint",
    "title",
    "validate_config",
    "validate_subclasses",
    "write_checkpoint",
]
