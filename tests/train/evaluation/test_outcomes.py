from __future__ import annotations

import json

import numpy as np
import pytest

from train.evaluation.outcomes import pack_bits, pack_replicates, pack_shares, unpack


@pytest.mark.parametrize("n", [0, 1, 7, 8, 270])
def test_bits_come_back_through_json(n: int) -> None:
    bits = np.random.default_rng(n).random(n) < 0.5
    packed = json.loads(json.dumps(pack_bits(bits)))
    assert np.array_equal(unpack(packed), bits.astype(float))
    assert len(packed["data"]) <= 4 * (n // 8 + 3) // 3 + 4


def test_shares_are_exact_fractions() -> None:
    accuracy = np.array([0, 1 / 75, 74 / 75, 1])
    assert np.array_equal(unpack(pack_shares(accuracy, 75)), accuracy)


def test_replicates_keep_single_precision() -> None:
    values = np.random.default_rng(0).normal(size=20)
    assert unpack(pack_replicates(values)) == pytest.approx(values, rel=1e-6)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="votes"):
        unpack({"kind": "votes", "n": 0, "data": ""})
