"""Votes and their enhancement: hand-computed cases, published figures and invariants (IELT)."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fgdemo.errors import UserError
from fgdemo.models.enhancement import Enhancement
from fgdemo.models.votes import (
    KERNEL,
    ballots,
    combine_scales,
    confident_votes,
    default_votes,
    enhance,
    head_votes,
    mean_attention,
    ranking,
    scale_kernels,
    scale_responses,
)


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


def test_confident_votes_by_hand():
    """Odds of 1 : 3 among the two highest of the first head, of 1 : 1 in the second; the rest gets nothing."""
    rows = torch.tensor([[0.0, math.log(3), -1.0, -9.0], [5.0, 1.0, 5.0, 4.9]])
    torch.testing.assert_close(confident_votes(rows, 2), torch.tensor([0.75, 0.75, 0.5, 0.0]))
    torch.testing.assert_close(confident_votes(rows, 1), torch.tensor([1.0, 1.0, 0.0, 0.0]))


def test_each_head_has_one_confident_vote_in_all():
    rows = torch.randn(2, 3, 5, 30) * 20
    votes = confident_votes(rows, 7)
    torch.testing.assert_close(votes.sum(-1), torch.full((2, 3), 5.0))
    assert torch.equal(votes > 0, head_votes(rows, 7) > 0)
    shifted = confident_votes(rows + torch.randn(2, 3, 5, 1) * 50, 7)
    torch.testing.assert_close(votes, shifted, rtol=1e-3, atol=1e-4)


def test_mean_attention_by_hand():
    rows = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]])
    torch.testing.assert_close(mean_attention(rows), torch.tensor([(0.25 + 0.8) / 2, (0.75 + 0.2) / 2]))


def test_ranking_by_hand():
    scores = torch.tensor([[2.0, 5, 2, 5, 0, 2], [1.0, 1, 1, 1, 1, 1]])
    assert ranking(scores).tolist() == [[1, 3, 0, 2, 5, 4], [0, 1, 2, 3, 4, 5]]
    ties = torch.tensor([[0.1, 0.2, 0.3, 0.9, 0.99, 0.1], [0.0, 0, 7, 0, 7, 1]])
    assert ranking(scores, ties).tolist() == [[3, 1, 2, 0, 5, 4], [2, 4, 5, 0, 1, 3]]


def test_ranking_equals_python_sorting():
    generator = torch.Generator().manual_seed(2)
    scores, ties = (torch.randint(0, 5, (6, 50), generator=generator) for _ in range(2))
    for row, second, plain, tied in zip(
        scores.tolist(), ties.tolist(), ranking(scores).tolist(), ranking(scores, ties).tolist(), strict=True
    ):
        assert plain == sorted(range(50), key=lambda i: (-row[i], i))
        assert tied == sorted(range(50), key=lambda i: (-row[i], -second[i], i))


@pytest.mark.parametrize("dilations", [(1,), (2,), (1, 2, 4), (3, 1), (5, 2, 1, 7)])
def test_one_convolution_is_exactly_the_dilated_ones(dilations):
    """Also where a filter reaches beyond the whole grid, and with learned filters, one a scale."""
    votes = torch.randint(0, 13, (2, 6 * 9), generator=torch.Generator().manual_seed(3))
    maps = votes.reshape(2, 1, 6, 9).float()
    found = scale_responses(votes, (6, 9), scale_kernels(dilations))
    base = torch.randint(-9, 9, (len(dilations), 3, 3), generator=torch.Generator().manual_seed(4)).float()
    bias = torch.arange(len(dilations)).float()
    learned = scale_responses(votes, (6, 9), scale_kernels(dilations, base), bias=bias)
    assert found.shape == learned.shape == (2, len(dilations), 54)
    for scale, d in enumerate(dilations):
        published = torch.tensor(KERNEL, dtype=torch.float32)[None, None]
        assert torch.equal(found[:, scale], F.conv2d(maps, published, padding=d, dilation=d).flatten(1))
        own = F.conv2d(maps, base[scale][None, None], bias[scale][None], padding=d, dilation=d)
        assert torch.equal(learned[:, scale], own.flatten(1))


def test_border_normalised_by_hand():
    """Three in a row, one vote in each: 4 2 on the grid of 16 at the ends, 2 4 2 in the middle."""
    votes = torch.ones(1, 3)
    zero = scale_responses(votes, (1, 3), scale_kernels((1,)))
    assert zero.tolist() == [[[6, 8, 6]]]
    normalised = scale_responses(votes, (1, 3), scale_kernels((1,)), border="normalised")
    assert normalised.tolist() == [[[16, 16, 16]]], "where all have alike, no place is better"
    corner = torch.tensor([[1, 0, 0, 0, 0, 0]])
    found = scale_responses(corner, (2, 3), scale_kernels((1,)), border="normalised")
    # Of the filter's 16, the corner sees 9 (4 2 2 1) and the middle of the edge 12.
    torch.testing.assert_close(found, torch.tensor([[[64 / 9, 32 / 12, 0, 32 / 9, 16 / 12, 0]]]))


def test_border_normalised_stays_finite_with_any_learned_filter():
    """Weights that cancel each other have no sum to divide by; the bias is no part of the filter."""
    base = torch.tensor([[[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]], [[0.0] * 3, [0.0] * 3, [0.0, 0.0, 5.0]]])
    votes, bias = torch.randint(0, 4, (2, 20)), torch.tensor([0.5, -0.5])
    found = scale_responses(votes, (4, 5), scale_kernels((1, 9), base), border="normalised", bias=bias)
    assert found.isfinite().all()
    nothing = scale_responses(votes * 0, (4, 5), scale_kernels((1, 9), base), border="normalised", bias=bias)
    assert torch.equal(nothing, bias[:, None].expand(2, 2, 20))


def test_combinations_by_hand():
    responses = torch.tensor([[[1.0, 8, 0, -3], [4.0, 1, 9, 2], [2.0, 1, 9, 2]]])
    assert combine_scales(responses, "max").tolist() == [[4, 8, 9, 2]]
    torch.testing.assert_close(combine_scales(responses, "mean"), torch.tensor([[7 / 3, 10 / 3, 6, 1 / 3]]))
    torch.testing.assert_close(combine_scales(responses, "product"), torch.tensor([[8.0, 8, 0, 0]]))


def test_gradient_of_the_product_is_finite_where_it_is_zero():
    responses = torch.tensor([[[0.0, 4], [0.0, 1], [3.0, 2]]], requires_grad=True)
    combine_scales(responses, "product").sum().backward()
    assert responses.grad.tolist() == [[[0, 2], [0, 8], [0, 4]]]


@pytest.mark.parametrize("count", [head_votes, confident_votes])
def test_autocast_rounds_nothing(count):
    """Odd sums above 256 do not exist in bfloat16."""
    rows = torch.randn(2, 24, 400) + 3 * torch.linspace(-1, 1, 400)
    votes = count(rows, 60)
    exact = enhance(votes, (20, 20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(count(rows, 60), votes)
        scores = enhance(votes, (20, 20))
    assert scores.dtype == torch.float32
    assert torch.equal(scores, exact)
    assert not torch.equal(exact, exact.bfloat16().float()), "scores that bfloat16 holds would prove nothing"


@pytest.mark.parametrize("border", ["zero", "normalised"])
@pytest.mark.parametrize("combine", ["max", "mean", "product"])
def test_mirrored_pictures_have_mirrored_scores(border, combine):
    enhancement = Enhancement((1, 2, 4), combine=combine, border=border, kernel="fixed")
    votes = torch.randint(0, 6, (3, 5 * 7), generator=torch.Generator().manual_seed(5))
    responses, scores = (found.unflatten(-1, (5, 7)) for found in enhancement(votes, (5, 7)))
    for axis in (-1, -2):
        mirrored = votes.unflatten(-1, (5, 7)).flip(axis).flatten(1)
        again, flipped = (found.unflatten(-1, (5, 7)) for found in enhancement(mirrored, (5, 7)))
        assert torch.equal(again.flip(axis), responses)
        assert torch.equal(flipped.flip(axis), scores)
    turned = enhancement(votes.unflatten(-1, (5, 7)).mT.flatten(1), (7, 5))[1].unflatten(-1, (7, 5)).mT
    assert torch.equal(turned, scores)


@pytest.mark.parametrize("count", [head_votes, confident_votes])
def test_order_of_heads_and_of_patches_does_not_matter(count):
    rows = torch.randn(2, 6, 40)
    heads, patches = torch.randperm(6), torch.randperm(40)
    votes = count(rows, 5)
    torch.testing.assert_close(count(rows[:, heads], 5), votes)
    torch.testing.assert_close(count(rows[..., patches], 5), votes[:, patches])


def test_published_bounds_of_the_scores():
    """At most 16 a head, at least 4 a vote, and 40 in all for each vote (fewer at the border)."""
    votes = head_votes(torch.randn(4, 12, 28 * 28), 24)
    scores = enhance(votes, (28, 28))
    assert scores.max() <= 16 * 12
    assert (scores >= 4 * votes).all()
    assert (scores.sum(-1) <= 40 * 12 * 24).all()
