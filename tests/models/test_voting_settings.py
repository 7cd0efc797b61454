"""Settings of a voting network: published proportions, refusals, and the way through JSON."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdemo.errors import UserError
from fgdemo.models.quotas import Quotas
from fgdemo.models.voting_settings import VotingSettings


def test_published_grid_gives_the_published_numbers():
    """448 pixels in patches of 16, eleven trunk blocks."""
    chosen = VotingSettings.for_grid(784, 11)
    assert (chosen.votes, chosen.candidates, chosen.refined, chosen.final_votes) == (24, 126, 24, 24)
    assert chosen.dilations == (1, 2, 4)


@pytest.mark.parametrize(
    ("patches", "blocks", "expected"),
    [
        (1024, 11, (31, 165, 31, 31)),  # DINOv2 at 448: 31.3 votes, 164.6 candidates, 31.4 survivors
        (144, 11, (4, 23, 4, 4)),
        (196, 3, (6, 32, 6, 6)),
        (16, 11, (4, 11, 4, 4)),  # every block has one at least
        (4, 1, (4, 4, 4, 4)),
        (1, 1, (1, 1, 1, 1)),
    ],
)
def test_proportions_of_other_grids(patches, blocks, expected):
    chosen = VotingSettings.for_grid(patches, blocks)
    assert (chosen.votes, chosen.candidates, chosen.refined, chosen.final_votes) == expected


def test_what_is_chosen_stays_and_the_rest_follows_it():
    chosen = VotingSettings.for_grid(784, 11, candidates=252, votes=7, merger=True)
    assert (chosen.votes, chosen.candidates, chosen.refined, chosen.final_votes) == (7, 252, 48, 48)
    assert chosen.merger
    assert VotingSettings.for_grid(784, 11, refined=30).final_votes == 30
    assert VotingSettings.for_grid(784, 11, votes=None) == VotingSettings.for_grid(784, 11)
    assert VotingSettings.for_grid(49, 12, quota_floor=2).candidates == 24


@given(st.integers(1, 2000), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_every_grid_has_settings_that_can_be(patches, blocks):
    chosen = VotingSettings.for_grid(patches, blocks)
    assert 1 <= chosen.votes <= patches
    assert 1 <= chosen.refined <= chosen.candidates
    assert 1 <= chosen.final_votes <= chosen.candidates
    quotas = Quotas(blocks, chosen.candidates, floor=chosen.quota_floor, cap=patches)
    assert quotas.quota.sum() == chosen.candidates


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"votes": 785}, "1 to 784 patches, not 785"),
        ({"votes": 0}, "votes is a whole number of at least 1, not 0"),
        ({"candidates": 2.5}, "candidates is a whole number of at least 1, not 2.5"),
        ({"candidates": True}, "candidates is a whole number"),
        ({"quota_floor": -1}, "quota_floor is a whole number of at least 0, not -1"),
        ({"refined": 127}, "127 refined tokens cannot come from 126 candidates"),
        ({"final_votes": 127}, "1 to 126 candidates, not 127"),
        ({"selection": "lots"}, "selection is one of votes, random, attention, class-token, not 'lots'"),
        ({"weights": "soft"}, "weights is one of equal, attention"),
        ({"combine": None, "border": "wrapped"}, "border is one of zero, normalised"),
        ({"merger": "yes"}, "merger is true or false, not 'yes'"),
        ({"assist": 1}, "assist is true or false, not 1"),
        ({"dilations": ()}, "at least one"),
        ({"dilations": (0, 1)}, "dilations are whole numbers from 1 to 63"),
        ({"dilations": (64,)}, "dilations are whole numbers from 1 to 63"),
        ({"dilations": (True,)}, "dilations are whole numbers from 1 to 63"),
        ({"dilations": "124"}, "dilations are whole numbers from 1 to 63"),
        ({"dilations": 2}, "dilations are whole numbers from 1 to 63"),
    ],
)
def test_refusals(values, message):
    with pytest.raises(UserError, match=message):
        VotingSettings.for_grid(784, 11, **values)


def test_quota_floor_may_be_nothing():
    assert VotingSettings.for_grid(784, 11, quota_floor=0).quota_floor == 0


def test_through_json_and_back():
    chosen = VotingSettings.for_grid(
        196, 5, selection="attention", dilations=(1, 3), merger=True, assist=False, rates="v", quota_floor=2
    )
    assert VotingSettings.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen
    assert set(chosen.to_dict()) == {field.name for field in fields(VotingSettings)}
    assert VotingSettings.for_grid(9, 9, **chosen.to_dict()) == chosen, "nothing is left to the grid"
    assert hash(VotingSettings.for_grid(784, 11, dilations=[1, 3])) == hash(
        VotingSettings.for_grid(784, 11, dilations=(1, 3))
    )


def test_content_of_a_checkpoint_is_checked():
    values = VotingSettings.for_grid(196, 5).to_dict()
    with pytest.raises(UserError, match=r"Unknown settings of a voting network: heads, temperature\. A newer fgdemo"):
        VotingSettings.from_dict({**values, "temperature": 1, "heads": 2})
    with pytest.raises(UserError, match=r"incomplete: .*'votes'"):
        VotingSettings.from_dict({name: value for name, value in values.items() if name != "votes"})
    with pytest.raises(UserError, match="dilations are whole numbers"):
        VotingSettings.from_dict({**values, "dilations": 3})
    with pytest.raises(UserError, match="combine is one of"):
        VotingSettings.from_dict({**values, "combine": ["max"]})
