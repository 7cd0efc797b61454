"""P x K batches: P classes with K pictures each, for losses that compare pictures of a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fgdemo.data.rng import keyed_permutation, keyed_seed
from fgdemo.data.samplers import EpochSampler
from fgdemo.errors import UserError


class ClassBalancedSampler(EpochSampler):
    """Batches of ``(row, pass)`` in which every micro-batch holds ``per_class`` rows of each of its classes.

    Batch-hard mining (Hermans et al., In Defense of the Triplet Loss, 2017, section 2) needs positives and
    negatives among the pictures of one forward pass. So each micro-batch, on every rank, has
    ``micro_batch // per_class`` different classes with ``per_class`` rows each, all different unless the class
    has fewer; then they repeat in turn.

    Classes come equally often, not rows: over an epoch two classes differ by one micro-batch at most, and the
    classes that come once more rotate. Within a class every row comes before any comes again, over epochs too.
    So on long-tailed data an epoch, which has as many batches as an ordinary one, repeats the rows of small
    classes and shows a part of those of large ones. With classes of one size rows come equally often as well,
    but an epoch need not show each of them.

    The second number of a pair is how often its class had been gone through before. It stands where
    `EpochSampler` has the epoch, as key of the random draws of `ImageSplit`: a picture that comes several times
    in an epoch is augmented anew each time.

    The pairs are a function of the seed and the epoch alone, and those of a global batch do not depend on how
    many processes share it while the micro-batch is the same. Drawing up an epoch takes up to about 400 bytes a
    row of the split.

    Args:
        targets: (n,) integer class of each row.
        batch_size: rows per process and batch.
        per_class: rows of each class in a micro-batch, K, at least 2.
        micro_batch: rows of one forward pass, a divisor of `batch_size`; None means `batch_size`.

    Raises:
        UserError: fewer rows than one global batch, fewer than two classes, or a micro-batch that K does not
            divide or that needs fewer than two classes or more than there are.
        ValueError: a batch that is no multiple of the micro-batch.
    """

    def __init__(
        self,
        targets: np.ndarray,
        batch_size: int,
        *,
        per_class: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        micro_batch: int | None = None,
    ) -> None:
        super().__init__(len(targets), batch_size, seed=seed, rank=rank, world=world)
        self.per_class, self.micro_batch = per_class, batch_size if micro_batch is None else micro_batch
        if self.micro_batch < 1 or batch_size % self.micro_batch:
            raise ValueError(f"batches of {batch_size} rows in micro-batches of {self.micro_batch}")
        _, class_of, self._sizes = np.unique(targets, return_inverse=True, return_counts=True)
        self._rows = np.argsort(class_of, kind="stable")
        self._starts = np.cumsum(self._sizes) - self._sizes
        _check(self.micro_batch, per_class, len(self._sizes))

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[list[tuple[int, int]]]:
        """This rank's batches of ``epoch``, from ``start_batch`` on."""
        pairs = self._pairs(epoch).reshape(self.batches_per_epoch, self.world, self.batch_size, 2)
        for batch in pairs[start_batch:, self.rank].tolist():
            yield [tuple(pair) for pair in batch]

    def _pairs(self, epoch: int) -> np.ndarray:
        """(rows of all ranks, 2) int64: each row and the number of its pass."""
        classes, turns = self._turns(epoch)
        stream = np.repeat(classes, self.per_class)
        position = (turns[:, None] * self.per_class + np.arange(self.per_class)).ravel()
        members = _drawn(stream, position, self._sizes, self.per_class, keyed_seed("class rows", self.seed))
        rows = self._rows[self._starts[stream] + members]
        return np.stack([rows, position // self._sizes[stream]], axis=1)

    def _turns(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(turns of all ranks,) class of each turn, and how many turns that class had since the first epoch."""
        count = len(self._sizes)
        turns = self.batches_per_epoch * self.world * self.batch_size // self.per_class
        # How many turns a class has is settled on one circle of classes, of which each epoch takes the next
        # `turns` places; in which order they come is drawn anew.
        before = epoch * turns
        circle = np.roll(keyed_permutation(count, "class circle", self.seed), -before % count)
        had = np.empty(count, np.int64)
        had[circle] = (before + np.arange(count)) // count

        lap, sizes = np.arange(turns) // count, np.array([count])
        seed = keyed_seed("class order", self.seed, epoch)
        order = _drawn(np.zeros(turns, np.int64), np.arange(turns), sizes, self.micro_batch // self.per_class, seed)
        # The last, partial lap must have the classes that come once more, which stand first on the circle.
        once_more = order[turns - turns % count :]
        names = np.empty(count, np.int64)
        names[np.concatenate([once_more, np.setdiff1d(np.arange(count), once_more)])] = circle
        classes = names[order]
        return classes, had[classes] + lap


def _check(micro_batch: int, per_class: int, classes: int) -> None:
    if per_class < 2:
        raise UserError(f"Class-balanced batches need at least 2 pictures of each class, not {per_class}.")
    if classes < 2:
        raise UserError("Class-balanced batches need training pictures of at least two classes: there is one.")
    if micro_batch % per_class:
        raise UserError(
            f"A batch size of {micro_batch} is no multiple of the {per_class} pictures of each class in a "
            f"class-balanced batch: use --batch-size {np.clip(micro_batch // per_class, 2, classes) * per_class}."
        )
    if not 2 <= micro_batch // per_class <= classes:
        raise UserError(
            f"A class-balanced batch of {micro_batch} pictures, {per_class} of each class, holds "
            f"{micro_batch // per_class} classes and must hold 2 to {classes}: use --batch-size "
            f"{2 * per_class} to {classes * per_class}, or other pictures of each class."
        )


def _drawn(stream: np.ndarray, position: np.ndarray, sizes: np.ndarray, group: int, seed: int) -> np.ndarray:
    """(m,) the member, 0..sizes[s]-1, at a position of the endless random stream s, for m pairs of both.

    A stream is one pass over all its members after another. Cut into groups of `group` positions, those 0 to
    group-1 and so on, a group holds no member twice, or where there are fewer members than that, each equally
    often up to one. Any position can be asked for; memory is the sum of the sizes of the passes asked for.

    A group that lies across two passes is what needs care. Passes, up to the next one that begins with a group,
    share a random circle of the members: its consecutive places repeat no member. The groups that lie within a
    pass are then free to share out their members anew.
    """
    code = stream * (position.max() + 1) + position // sizes[stream]
    codes, pass_of = np.unique(code, return_inverse=True)
    streams, numbers = np.divmod(codes, position.max() + 1)
    lengths = sizes[streams]
    starts = np.cumsum(lengths) - lengths

    unit = np.repeat(np.arange(len(codes)), lengths)
    place = np.arange(len(unit)) - starts[unit]
    size, number = lengths[unit], numbers[unit]
    in_circle = numbers // (group // np.gcd(lengths, group))
    key = _hash(seed, streams[unit], in_circle[unit], place)
    members = np.lexsort((key, unit)) - starts[unit]

    first = (number * size + place) // group * group
    within = np.flatnonzero(first // size == (first + group - 1) // size)
    key = _hash(seed + 1, streams[unit][within], number[within], place[within])
    members[within] = members[within[np.lexsort((key, unit[within]))]]
    return members[starts[pass_of] + position % sizes[stream]]


def _hash(seed: int, *parts: np.ndarray) -> np.ndarray:
    """(m,) uint64 that depends on the seed and the m tuples alone, by the finaliser of SplitMix64.

    One stream of a generator for each pass of each class would need a Python loop over them.
    Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    value = np.full(parts[0].shape, seed % 2**64, np.uint64)
    for part in parts:
        value += part.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value ^= value >> np.uint64(31)
    return value
