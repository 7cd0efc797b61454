"""Random draws that depend on a key alone, never on what was drawn before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def keyed_seed(*parts: int | str) -> int:
    """A 64-bit number that depends on ``parts`` alone: the same on every machine and Python version.

    Types and boundaries count: ``(1, 23)``, ``(12, 3)`` and ``("1", 23)`` give different numbers.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):
            kind, value = b"s", part.encode("utf-8", "surrogatepass")
        elif isinstance(part, (int, np.integer)):
            kind, value = b"i", b"%d" % int(part)
        else:
            raise TypeError(f"a key part is an int or a str, not {type(part).__name__}")
        digest.update(b"%b%d:%b" % (kind, len(value), value))
    return int.from_bytes(digest.digest(), "little")


def keyed_permutation(n: int, *parts: int | str) -> np.ndarray:
    """(n,) int64 permutation of 0..n-1 that depends on ``parts`` alone.

    Built on the raw stream of PCG64, which NumPy keeps stable over versions, unlike `Generator.permutation`.
    """
    return np.argsort(np.random.PCG64(keyed_seed(*parts)).random_raw(n), kind="stable")


@contextmanager
def keyed_random(seed: int) -> Iterator[None]:
    """Within the block, `random`, `numpy.random` and torch's CPU generator start from ``seed``.

    All three states are put back on exit. The states are global: one such block at a time in a process.
    """
    before_random, before_numpy = random.getstate(), np.random.get_state()
    generator = torch.default_generator
    before_torch = generator.get_state()
    try:
        random.seed(seed)
        np.random.seed([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF])
        generator.manual_seed(seed)
        yield
    finally:
        random.setstate(before_random)
        np.random.set_state(before_numpy)
        generator.set_state(before_torch)
