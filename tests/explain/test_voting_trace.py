"""Explanations of a network that votes itself: its own votes, candidates and stages, whatever its settings are."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_checkpoint import make_network, make_voting_network, picture, write_tiny

from fgdemo.__main__ import main
from fgdemo.errors import UserError
from fgdemo.explain.explanation import Explanation, explain
from fgdemo.models.votes import confident_votes, head_votes
from fgdemo.models.voting import VotingNetwork

BOX = (0.0, 2.5, 80.0, 60.0)
OPTIONS = [
    {},
    {"votes": 9},
    {"weights": "attention"},
    {"dilations": (1,)},
    {"dilations": (1, 3)},
    {"combine": "mean"},
    {"combine": "product"},
    {"border": "normalised"},
    {"kernel": "learned"},
    {"selection": "random"},
    {"selection": "attention"},
    {"merger": True},
]


def image_of(network: VotingNetwork) -> torch.Tensor:
    return torch.randn(3, *network.encoder.input_size, generator=torch.Generator().manual_seed(1))


def explained(**settings) -> tuple[VotingNetwork, Explanation]:
    network = make_voting_network(**settings)
    if network.enhancement.learned:
        with torch.no_grad():
            network.enhancement.base.copy_(torch.randn_like(network.enhancement.base))
            network.enhancement.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    return network, explain(network, image_of(network), BOX)


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
@torch.no_grad()
def test_maps_are_those_of_the_networks_own_settings(settings: dict) -> None:
    network, found = explained(**settings)
    rows = network.encoder.class_rows(image_of(network)[None])
    count = confident_votes if settings.get("weights") == "attention" else head_votes
    votes = count(rows.logits, settings.get("votes", 4))[0]
    responses, scores = network.enhancement(votes, rows.grid)
    blocks, scales = 5, len(settings.get("dilations", (1, 2, 4)))
    assert (found.kind, found.grid, found.num_blocks, found.num_heads) == ("votes", (12, 12), blocks, 2)
    assert found.scales == settings.get("dilations", (1, 2, 4))
    np.testing.assert_array_equal(found.voting.votes, votes.reshape(blocks, 12, 12))
    np.testing.assert_allclose(found.voting.scale_scores, responses.reshape(blocks, scales, 12, 12), rtol=1e-6)
    np.testing.assert_allclose(found.voting.scores, scores.reshape(blocks, 12, 12), rtol=1e-6)
    np.testing.assert_allclose(found.voting.attention, rows.softmax()[0].reshape(blocks, 2, 12, 12), rtol=1e-6)
    np.testing.assert_allclose(found.voting.ballots.sum(1), found.voting.votes, rtol=1e-6)
    single, combined = network.enhancement(count(rows.logits[0, 3, 1:], settings.get("votes", 4))[None], rows.grid)
    np.testing.assert_allclose(found.voting.head_scores()[3, 1], combined.reshape(12, 12), rtol=1e-6)
    np.testing.assert_allclose(found.voting.head_scale_scores()[3, 1], single.reshape(scales, 12, 12), rtol=1e-6)


def test_every_option_of_the_votes_changes_what_is_shown() -> None:
    usual = explained()[1]
    for settings in OPTIONS[1:9]:
        assert not np.array_equal(explained(**settings)[1].select(what="scores").map, usual.select(what="scores").map)
    for settings in OPTIONS[9:]:
        assert explained(**settings)[1].pool.candidates != usual.pool.candidates


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
@torch.no_grad()
def test_candidates_are_those_that_the_network_took(settings: dict) -> None:
    network, found = explained(**settings)
    output, trace = network.trace(image_of(network)[None])
    pool, total = found.pool, network.settings.candidates
    assert pool.quotas == tuple(network.quotas.quota.tolist())
    placed, merged = pool.candidates[:total], pool.candidates[total:]
    assert [c.block for c in placed] == np.repeat(np.arange(5), pool.quotas).tolist()
    assert [12 * c.y + c.x for c in placed] == trace.position[0].tolist()
    assert [c.score for c in placed] == [float(found.voting.scores[c.block, c.y, c.x]) for c in placed]
    assert [c.rank for c in placed] == [rank for quota in pool.quotas for rank in range(quota)]
    assert [c.final_votes for c in pool.candidates] == trace.final_votes[0].tolist()
    survivors = sorted((c for c in pool.candidates if c.refined is not None), key=lambda c: c.refined)
    assert [pool.candidates.index(c) for c in survivors] == trace.refined[0].tolist()
    assert [c.block for c in survivors] == output.picked[0].tolist()
    assert [pool.refined_of(block) for block in range(5)] == torch.bincount(output.picked[0], minlength=5).tolist()
    assert len(merged) == (5 if settings.get("merger") else 0)
    assert all((c.y, c.x, c.score, c.rank) == (None,) * 4 for c in merged)


def test_the_best_voted_patches_of_a_block_are_its_candidates() -> None:
    found = explained()[1]
    for block in range(5):
        scores = found.voting.scores[block].ravel()
        best = np.argsort(-scores, kind="stable")[: found.pool.quotas[block]]
        assert [12 * c.y + c.x for c in found.candidates(block)] == best.tolist()
    assert sum((found.candidates(block) for block in range(5)), ()) == found.candidates() == found.pool.candidates
    with pytest.raises(UserError, match="block must be 0 to 4"):
        found.candidates(5)


def test_merged_tokens_can_be_refined() -> None:
    found = explained(merger=True, refined=20, candidates=20)[1]
    merged = found.pool.candidates[20:]
    assert [c.block for c in merged] == [0, 1, 2, 3, 4]
    assert any(c.refined is not None for c in merged)
    assert sum(c.refined is not None for c in found.pool.candidates) == 20
    assert sum(found.pool.quotas) == 20


@torch.no_grad()
def test_stages_are_the_networks_own_and_the_assistance_leads_from_one_to_the_other() -> None:
    network, found = explained()
    output = network(image_of(network)[None])
    stages = found.pool.probabilities
    expected = {"all_candidates": output.cross_logits, "refined_picks": output.key_logits, "final": output.logits}
    assert list(stages) == list(expected)
    for stage, logits in expected.items():
        np.testing.assert_allclose(stages[stage], logits[0].softmax(0), rtol=1e-5)
    assert len({tuple(shares.round(3)) for shares in stages.values()}) == 3
    sums = network.head.weight.sum(1).numpy()
    np.testing.assert_allclose(found.pool.assistance, stages["all_candidates"] * sums, rtol=1e-4, atol=1e-6)
    final = np.log(stages["refined_picks"]) + found.pool.assistance
    np.testing.assert_allclose(stages["final"], np.exp(final) / np.exp(final).sum(), rtol=1e-4)


def test_stages_that_a_network_does_not_have_are_left_out() -> None:
    assert list(explained(key_block=False)[1].pool.probabilities) == ["final"]
    unassisted = explained(assist=False)[1].pool
    assert list(unassisted.probabilities) == ["all_candidates", "final"]
    assert not unassisted.assistance.any()


def test_a_network_of_the_class_token_alone_has_no_candidates() -> None:
    pool = explained(selection="class-token")[1].pool
    assert (pool.candidates, pool.quotas, list(pool.probabilities)) == ((), (0,) * 5, ["final"])


def test_single_scales_share_one_colour_scale() -> None:
    found = explained()[1]
    maps = found.voting.scale_scores
    for place, scale in enumerate((1, 2, 4)):
        for block in range(5):
            view = found.select(block, "all", "scores", scale)
            np.testing.assert_array_equal(view.map, maps[block, place])
            assert (view.vmin, view.vmax) == (0, maps.max())
        whole = found.select("all", "all", "scores", scale)
        np.testing.assert_array_equal(whole.map, maps[:, place].sum(0))
        assert whole.vmax == maps.sum(0).max()
        one = found.select(2, 1, "scores", scale)
        np.testing.assert_array_equal(one.map, found.voting.head_scale_scores()[2, 1, place])
        assert one.vmax == found.voting.head_scale_scores().max()
    together = np.max([found.select(0, "all", "scores", scale).map for scale in (1, 2, 4)], axis=0)
    np.testing.assert_array_equal(found.select(0, "all", "scores").map, together)


@pytest.mark.parametrize(
    ("what", "scale", "message"),
    [
        ("scores", 3, "1, 2, 4 or 'all'"),
        ("scores", True, "scale"),
        ("scores", 2.0, "scale"),
        ("scores", [1], "scale"),
        ("votes", 1, "only 'all'"),
        ("attention", 1, "only 'all'"),
    ],
)
def test_unknown_scales_are_refused(what: str, scale: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        explained()[1].select("all", "all", what, scale)


def test_its_number_of_votes_is_its_own() -> None:
    network = make_voting_network(votes=6)
    assert explain(network, image_of(network), BOX, k=6).voting.k == 6
    with pytest.raises(UserError, match="votes for 6 patches; it cannot be 5"):
        explain(network, image_of(network), BOX, k=5)


def test_pictures_that_are_not_square() -> None:
    network = make_network("test_vit", "voting", img_size=(160, 256))
    found = explain(network, image_of(network), BOX)
    assert found.grid == (10, 16)
    assert all(0 <= c.y < 10 and 0 <= c.x < 16 for c in found.pool.candidates)
    assert max(c.x for c in found.pool.candidates) > 9


def test_what_is_kept_does_not_keep_the_network() -> None:
    network, found = explained()
    there = weakref.ref(network)
    del network
    gc.collect()
    assert there() is None
    assert found.select(0, 1, "scores", 2).map.any()


def test_networks_that_do_not_vote_have_no_pool() -> None:
    network = make_network("test_vit")
    found = explain(network, torch.randn(3, 64, 64), BOX)
    assert (found.pool, found.candidates(), found.scales) == (None, (), (1, 2, 4))
    assert "candidates" not in found.to_dict()


def test_to_dict_is_json_and_complete() -> None:
    found = explained(merger=True)[1]
    text = json.loads(json.dumps(found.to_dict()))
    assert np.array(text["scale_scores"]).shape == (5, 3, 12, 12)
    rows = np.array(text["class_rows"])
    assert rows.shape == (5, 2, 12, 12)
    np.testing.assert_allclose(rows.sum((2, 3)), 1, atol=1e-4)
    assert text["quotas"] == list(found.pool.quotas)
    assert text["selection"] == "votes"
    assert text["candidates"] == [c._asdict() for c in found.pool.candidates]
    assert [text["candidates"][place]["refined"] for place in text["refined"]] == list(range(len(text["refined"])))
    assert set(text["probabilities"]) == {"all_candidates", "refined_picks", "final"}
    np.testing.assert_allclose(text["assistance"], found.pool.assistance)


def test_the_command_line_writes_the_pool(tmp_path: Path) -> None:
    checkpoint = write_tiny(tmp_path / "voting", network=make_voting_network(votes=7, dilations=(1, 3)))
    picture(50, (120, 80)).save(tmp_path / "p.png")
    words = [str(tmp_path / "p.png"), "--checkpoint", str(checkpoint), "--device", "cpu"]
    assert main(["explain", *words, "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "p.json").read_text(encoding="utf-8"))
    explanation = found["explanation"]
    assert (explanation["votes_per_head"], explanation["dilations"]) == (7, [1, 3])
    assert len(explanation["candidates"]) == sum(explanation["quotas"])
    assert max(explanation["probabilities"]["final"]) == pytest.approx(found["classes"][0]["probability"], rel=1e-5)
