"""Which samples a process sees, and in which order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fgdemo.data.rng import keyed_permutation
from fgdemo.errors import UserError


class EpochSampler:
    """Batches of ``(row, epoch)`` for training, the same for a seed whatever happened before.

    A global batch has ``batch_size * world`` rows; rank r gets its r-th block of ``batch_size``, so the rows
    of a global batch do not depend on how many processes share it. Every row comes at most once an epoch over
    all ranks. The ``n mod (batch_size * world)`` rows that do not fill a global batch are left out: a window
    over a seeded permutation that moves on by its own length each epoch, so that every row is left out
    equally often.

    Args:
        n: rows in the split.
        batch_size: rows per process and batch.

    Raises:
        UserError: fewer rows than one global batch.
    """

    def __init__(self, n: int, batch_size: int, *, seed: int, rank: int = 0, world: int = 1) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world} processes")
        if batch_size < 1:
            raise UserError(f"The batch size must be at least 1, not {batch_size} (--batch-size).")
        if n < batch_size * world:
            raise UserError(
                f"{n} training pictures do not fill one batch of {batch_size} x {world} processes: "
                f"use --batch-size {max(n // world, 1)} or less"
                + (f" and at most {n} processes." if n < world else ".")
            )
        self.n, self.batch_size, self.seed, self.rank, self.world = n, batch_size, seed, rank, world

    @property
    def batches_per_epoch(self) -> int:
        return self.n // (self.batch_size * self.world)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[list[tuple[int, int]]]:
        """This rank's batches of ``epoch``, from ``start_batch`` on."""
        order = self._order(epoch).reshape(self.batches_per_epoch, self.world, self.batch_size)
        for rows in order[start_batch:, self.rank].tolist():
            yield [(row, epoch) for row in rows]

    def _order(self, epoch: int) -> np.ndarray:
        base = keyed_permutation(self.n, "epoch base", self.seed)
        left_out = self.n % (self.batch_size * self.world)
        kept = np.roll(base, -(epoch * left_out) % self.n)[left_out:]
        return kept[keyed_permutation(len(kept), "epoch order", self.seed, epoch)]


def shard_rows(n: int, rank: int, world: int) -> np.ndarray:
    """(m,) int64 rows of 0..n-1 that this rank evaluates: contiguous, each row on one rank only, no padding.

    The shares differ by one row at most. Concatenated by rank they are 0..n-1.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world} processes")
    return np.array_split(np.arange(n, dtype=np.int64), world)[rank]
