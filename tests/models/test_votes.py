"""Votes and their enhancement: hand-computed cases, published figures and invariants (IELT)."""

from __future__ import annotations

import pytest
import torch

from fgdemo.errors import UserError
from fgdemo.models.votes import ballots, default_votes, enhance, head_votes


def test_hand_computed_votes():
    rows = torch.tensor([[[[3.0, 1.0, 2.0, 0.0], [0.0, 5.0, 4.0, 1.0]]]])
    assert head_votes(rows, 2).tolist() == [[[1, 1, 2, 0]]]
    assert ballots(rows, 1).tolist() == [[[[True, False, False, False], [False, True, False, False]]]]


def test_ties_go_to_the_lowest_index():
    rows = torch.tensor([[1.0, 2.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert ballots(rows, 2).tolist() == [[True, True, False, False, False], [True, True, False, False, False]]
    assert ballots(rows, 3).tolist() == [[True, True, True, False, False], [True, True, True, False, False]]


def test_votes_equal_a_stable_sort():
    rows = torch.randint(0, 6, (3, 2, 4, 40), generator=torch.Generator().manual_seed(0)).float()
    order = rows.sort(dim=-1, descending=True, stable=True).indices[..., :7]
    expected = torch.zeros(3, 2, 4, 40).scatter_(-1, order, 1).sum(2).long()
    assert torch.equal(head_votes(rows, 7), expected)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_every_head_casts_k_votes(k):
    votes = head_votes(torch.randn(2, 3, 4, 30), k)
    assert votes.shape == (2, 3, 30)
    assert (votes.sum(-1) == 4 * k).all()
    assert 0 <= votes.min() <= votes.max() <= 4


@pytest.mark.parametrize("k", [0, 31, -1])
def test_impossible_k(k):
    with pytest.raises(UserError, match="1 to 30"):
        head_votes(torch.randn(1, 1, 1, 30), k)


def test_default_keeps_the_published_proportion():
    assert default_votes(784) == 24
    assert [default_votes(n) for n in (3, 16, 64, 196, 1024)] == [3, 4, 4, 6, 31]


def test_one_vote_spreads_as_published():
    """Impulse response: 25 cells; 4 in the centre, 2 on the axes and 1 on the diagonals at +-1, +-2, +-4."""
    votes = torch.zeros(11, 11)
    votes[5, 5] = 1
    score = enhance(votes.flatten()[None], (11, 11)).reshape(11, 11)
    expected = torch.zeros(11, 11)
    expected[5, 5] = 4
    for d in (1, 2, 4):
        for sign in (-d, d):
            expected[5 + sign, 5] = expected[5, 5 + sign] = 2
            expected[5 + sign, 5 + sign] = expected[5 + sign, 5 - sign] = 1
    assert torch.equal(score, expected)
    assert (score != 0).sum() == 25
    assert score.sum() == 40


def test_single_scale_is_ielts_filter_with_zero_padding():
    score = enhance(torch.tensor([[1, 0, 0, 0, 0, 0]]), (2, 3), dilations=(1,))
    assert score.tolist() == [[4, 2, 0, 2, 1, 0]]


def test_largest_response_over_dilations_counts():
    votes = torch.randint(0, 5, (2, 3, 54), generator=torch.Generator().manual_seed(1))
    each = torch.stack([enhance(votes, (6, 9), (d,)) for d in (1, 2, 4)])
    scores = enhance(votes, (6, 9))
    assert torch.equal(scores, each.amax(0))
    assert torch.equal(scores, scores.round())
    assert (scores >= 4 * votes).all()


def test_rows_and_columns_are_not_swapped():
    votes = torch.zeros(1, 12)
    votes[0, 4] = 1
    wide, tall = (enhance(votes, grid, (1,)).reshape(grid) for grid in ((3, 4), (4, 3)))
    assert wide[1, 0] == 4
    assert tall[1, 1] == 4
    assert wide[0].tolist() == [2, 1, 0, 0]
    assert tall[0].tolist() == [1, 2, 1]
