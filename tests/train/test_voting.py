"""The voting method: presets, losses by hand, quotas by optimiser steps, every option live."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from support.commands import ROOT, TWO, finish, start
from support.runs import assert_equal_runs, data_info

from fgdemo.checkpoint import read_checkpoint
from fgdemo.data import Sample
from fgdemo.errors import UserError
from fgdemo.losses import batch_hard_triplet
from fgdemo.models import Network
from fgdemo.predict import load
from train.__main__ import main
from train.cli import build_parser, split_namespace
from train.methods import Voting, voting
from train.methods.voting import PRESETS, VotingOptions
from train.options import GROUPS, EncoderOptions, OptimOptions
from train.state import list_states, load_state
from train.sweep_file import read_sweep
from train.tracking import read_rows

# 64 patches in a trunk of three blocks.
ENCODER = EncoderOptions(
    encoder="vit_conv_mini_patch16_128",
    pretrained=False,
    img_size=32,
    encoder_args={"channels": [8, 16], "depth": 4, "num_heads": 2},
)
DATA = data_info("abcd", 40)
# The same on the command line, on the digits: nine steps an epoch.
SMALL = [
    *("--data", "digits", "--encoder", "vit_conv_mini_patch16_128", "--no-pretrained", "--img-size", "32", "--cache"),
    *("--encoder-args", '{"channels": [8, 16], "depth": 4, "num_heads": 2}', "--epochs", "2", "--batch-size", "128"),
    *("--lr", "0.003", "--hflip", "0", "--color-jitter", "0", "--workers", "0", "--threads", "1", "--device", "cpu"),
    *("--trackers", "none"),
]
# option -> what shows that it is live, from a value that is not the default
CHANGES_LOSS = {
    "label_smoothing": 0.3,
    "mixup": 0.5,
    "cutmix": 0.5,
    "votes": 9,
    "candidates": 20,
    "refined": 3,
    "final_votes": 2,
    "selection": "attention",
    "vote_weights": "attention",
    "dilations": (1,),
    "combine": "mean",
    "border": "normalised",
    "ties": "attention",
    "merger": True,
    "key_block": False,
    "assist": False,
    "key_token": "refined",
    "candidate_norm": True,
    "new_blocks": "random",
    "zero_head": True,
    "rates": "v",
    "complement": 0.1,
    "triplet": 0.5,
    "preset": "as-published-base",
}
ELSEWHERE = {
    "mixup_prob": "test_share_of_mixed_batches",
    "kernel": "test_a_learned_kernel_and_layer_embeddings_are_trained",
    "layer_embedding": "test_a_learned_kernel_and_layer_embeddings_are_trained",
    "quota_floor": "test_quota_floor",
    "quota_rate": "test_quotas_follow_the_picks_once_warm",
    "quota_warmup": "test_quotas_follow_the_picks_once_warm",
    "margin": "test_triplet_options",
    "soft_margin": "test_triplet_options",
    "triplet_space": "test_triplet_options",
}


def batch(seed: int = 0) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    return Sample(images, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), torch.arange(8), [""] * 8)


def built(**options: object) -> tuple[Voting, Network]:
    """The method and its network in evaluation mode, so that only the options differ."""
    torch.manual_seed(0)
    method = Voting(VotingOptions(**options), DATA)
    network = method.build(ENCODER).eval()
    with torch.no_grad():
        for parameter in network.encoder.parameters():
            parameter.mul_(2)
    return method, network


def losses(**options: object) -> dict[str, torch.Tensor]:
    method, network = built(**options)
    torch.manual_seed(1)
    return method.training_step(network, batch())


def test_every_option_is_covered() -> None:
    assert {f.name for f in dataclasses.fields(VotingOptions)} == CHANGES_LOSS.keys() | ELSEWHERE.keys()
    assert not CHANGES_LOSS.keys() & ELSEWHERE.keys()


@pytest.mark.parametrize("option", sorted(CHANGES_LOSS))
def test_changes_the_loss(option: str) -> None:
    plain, changed = losses(), losses(**{option: CHANGES_LOSS[option]})
    assert not torch.equal(plain["total"], changed["total"])


@pytest.mark.parametrize("preset", PRESETS)
def test_losses_by_hand(preset: str) -> None:
    method, network = built(preset=preset, votes=5, candidates=20, refined=4, final_votes=4, zero_head=False)
    output, sample = network(batch().image), batch()
    found = method.training_step(network, sample)
    ce, complement = (F.cross_entropy(logits, sample.label) for logits in (output.logits, output.cross_logits))
    assert not torch.equal(ce, complement)
    share = {"recommended": 0.4, "as-published-base": 0.4, "as-published-extension": 0.0}[preset]
    expected = (1 - share) * ce + share * complement
    if preset == "as-published-extension":
        triplet = batch_hard_triplet(output.class_token, sample.label, margin=1.0, normalise=False)
        expected = expected + 0.1 * triplet.loss
        assert torch.equal(found["triplet_active"], triplet.active)
        assert triplet.loss > 0
    torch.testing.assert_close(found["total"], expected)
    torch.testing.assert_close(found["ce"], ce)
    torch.testing.assert_close(found["ce_complement"], complement)


def test_triplet_options() -> None:
    plain = losses(triplet=1.0)["triplet"]
    for changed in ({"margin": 0.7}, {"soft_margin": True}, {"triplet_space": "raw"}):
        assert not torch.equal(plain, losses(triplet=1.0, **changed)["triplet"]), changed
    with_preset = losses(preset="as-published-extension", votes=5, candidates=20, refined=4, final_votes=4)
    assert with_preset["triplet"] > plain, "raw distances with a margin of 1"


def test_share_of_mixed_batches() -> None:
    method, network = built(mixup=0.5, mixup_prob=0.0)
    torch.manual_seed(1)
    never = method.training_step(network, batch())["ce"]
    output = network(batch().image)
    torch.testing.assert_close(never, F.cross_entropy(output.logits, batch().label))
    assert not torch.equal(never, losses(mixup=0.5)["ce"])


def test_a_learned_kernel_and_layer_embeddings_are_trained() -> None:
    method, network = built(kernel="learned", layer_embedding=True)
    method.training_step(network.train(), batch())["total"].backward()
    assert network.enhancement.base.grad.abs().sum() > 0
    assert network.layer_embedding.weight.grad.abs().sum() > 0
    names = {name for name, _ in built()[1].named_parameters()}
    assert {n for n, _ in network.named_parameters()} - names == {
        "enhancement.base",
        "enhancement.bias",
        "layer_embedding.weight",
    }


def test_every_parameter_gets_a_gradient() -> None:
    for preset in PRESETS:
        method, network = built(preset=preset, votes=5, candidates=20, refined=4, final_votes=4, zero_head=False)
        method.training_step(network.train(), batch())["total"].backward()
        assert not [name for name, p in network.named_parameters() if p.grad is None], preset


def test_quota_floor() -> None:
    _, network = built(quota_floor=3, candidates=12)
    network.quotas.rates.copy_(torch.tensor([1.0, 0.0, 0.0]))
    for _ in range(2):
        network.quotas.update(torch.tensor([5, 0, 0]), rate=0.0, after=0)
    assert network.quotas.quota.tolist() == [6, 3, 3]


def test_quotas_follow_the_picks_once_warm() -> None:
    """Ten optimiser steps of two micro-batches each: the clock counts steps, and nothing moves before its time."""
    found = {}
    for rate, warmup in ((0.0, 1.0), (0.5, 1.0), (0.5, 2.0)):
        method, network = built(quota_rate=rate, quota_warmup=warmup)
        network.quotas.rates.copy_(torch.tensor([0.8, 0.1, 0.1]))
        rates = []
        for step in range(10):
            for micro in range(2):
                method.training_step(network, batch(2 * step + micro))
            method.end_step(network, lambda tensor: tensor, steps_per_epoch=4)
            rates.append(round(float(network.quotas.rates[0]), 6))
        moved = [r != 0.8 for r in rates]
        found[rate, warmup] = moved.index(True) if any(moved) else None
        assert int(network.quotas.quota.sum()) == network.settings.candidates
    assert found == {(0.0, 1.0): None, (0.5, 1.0): 4, (0.5, 2.0): 8}


def test_counts_are_those_of_all_processes() -> None:
    method, network = built(quota_rate=0.25, quota_warmup=0.0)
    output = network(batch().image)
    method.training_step(network, batch())
    method.end_step(network, lambda picks: picks + torch.tensor([0, 64, 0]), steps_per_epoch=4)
    picks = output.picked.flatten().bincount(minlength=3) + torch.tensor([0, 64, 0])
    expected = 0.75 / 3 + 0.25 * picks[0] / picks.sum()
    assert float(network.quotas.rates[0]) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"complement": 1.5}, "--complement"),
        ({"triplet": -1.0}, "--triplet"),
        ({"quota_rate": 2.0}, "--quota-rate"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"triplet": 0.1, "mixup": 0.2}, "--mixup"),
        ({"key_block": False, "assist": True}, "--assist is part of the key block"),
        ({"key_block": False, "key_token": "trunk"}, "--key-token"),
        ({"selection": "class-token", "merger": True}, "--merger works on selected patches"),
        ({"selection": "class-token", "layer_embedding": True}, "--layer-embedding"),
        ({"selection": "class-token", "kernel": "learned"}, "--kernel shapes the scores of patches"),
        ({"selection": "class-token", "candidates": 20}, "--candidates works on selected patches"),
        ({"selection": "random", "dilations": (1,)}, "which --selection random does not use .*--merger.: drop it"),
        ({"selection": "attention", "votes": 9}, "--votes shapes the scores of patches"),
        ({"selection": "random", "merger": True, "ties": "attention"}, "--ties is about choosing by votes"),
        ({"selection": "attention", "quota_rate": 0.5}, "--quota-rate .* which --selection attention does not do"),
        ({"selection": "random", "quota_warmup": 2.0}, "--quota-warmup"),
    ],
)
def test_refused_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Voting(VotingOptions(**options), DATA)


@pytest.mark.parametrize(
    ("common", "refused"),
    [
        ({"selection": "random"}, 8),
        ({"selection": "attention"}, 8),
        ({"selection": "random", "merger": True}, 2),
        ({"selection": "attention", "merger": True}, 2),
        ({"selection": "class-token"}, 12),
    ],
)
def test_controls_refuse_just_what_does_nothing_for_them(
    common: dict[str, Any], refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_any_method = {"selection", "merger", "preset", "label_smoothing", "mixup", "cutmix"}
    values = {name: value for name, value in CHANGES_LOSS.items() if name not in of_any_method}
    values |= {"kernel": "learned", "layer_embedding": True}
    # these two start where they change nothing yet
    grows = {"kernel", "layer_embedding"}
    idle = set()
    for option, value in values.items():
        try:
            Voting(VotingOptions(**common, **{option: value}), DATA)
        except UserError:
            idle.add(option)
    monkeypatch.setattr(voting, "_check_choices", lambda options: None)
    plain, names = losses(**common)["total"], {name for name, _ in built(**common)[1].named_parameters()}
    for option, value in values.items():
        changed = losses(**common, **{option: value})["total"]
        more = {name for name, _ in built(**common, **{option: value})[1].named_parameters()} - names
        acts = bool(more) if option in grows else not torch.equal(changed, plain)
        assert acts is (option not in idle), option
    assert len(idle) == refused


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("selection", ["votes", "random", "attention", "class-token"])
def test_presets_go_with_every_selection(preset: str, selection: str) -> None:
    Voting(VotingOptions(preset=preset, selection=selection), DATA)
    # said aloud, what holds anyway is no request
    said = {"dilations": PRESETS[preset].get("dilations", (1, 2, 4)), "merger": False, "quota_rate": 1e-3}
    Voting(VotingOptions(preset=preset, selection=selection, **said), DATA)


def test_sizes_of_a_preset_that_do_nothing_forbid_no_others() -> None:
    for preset in PRESETS:
        for selection in ("random", "attention"):
            _, network = built(preset=preset, selection=selection, candidates=20, refined=4)
            assert (network.settings.candidates, network.settings.refined) == (20, 4)
    small = replace(ENCODER, img_size=16)
    for selection in ("random", "class-token"):
        options = {} if selection == "class-token" else {"candidates": 20, "refined": 4}
        method = Voting(VotingOptions(preset="as-published-base", selection=selection, **options), DATA)
        assert method.build(small).settings.votes == 4, "of 16 patches"


def test_rows_of_the_sweep_are_accepted() -> None:
    rows = [row for row in read_sweep(ROOT / "train/recipes/sweeps/voting.yaml").rows if row.method == "voting"]
    assert {row.options.get("selection") for row in rows} == {None, "random", "attention", "class-token"}
    groups = (*GROUPS, VotingOptions)
    for row in rows:
        values = build_parser("test", "", groups).parse_object(row.options)
        Voting(split_namespace(values, groups)[-1], DATA)


def test_triplets_need_several_pictures_of_a_class() -> None:
    method = Voting(VotingOptions(triplet=0.1), DATA)
    with pytest.raises(UserError, match="--per-class 2"):
        method.check(OptimOptions())
    method.check(replace(OptimOptions(), per_class=2))
    Voting(VotingOptions(), DATA).check(OptimOptions())


def test_from_training_to_a_prediction(
    tmp_path: Path, train: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A run with everything on; killed and resumed it ends the same, quotas included; its checkpoint classifies."""
    train = partial(train, method="voting", small=SMALL)
    words = ["--triplet", "0.1", "--per-class", "4", "--accumulate", "2", "--merger", "--quota-warmup", "0.5"]
    words += ["--quota-rate", "0.2", "--ema", "0.9", "--log-every", "1", "--batch-size", "40", "--dilations", "1"]
    whole = train(*words, name="whole", export=True)
    broken = train(*words, name="broken")
    train(*words, "--resume", str(list_states(broken / "state")[0]), name="broken")
    assert_equal_runs(whole, broken)
    state = load_state(list_states(whole / "state")[-1]).tensors["model"]
    assert not torch.equal(state["quotas.rates"], torch.full((3,), 1 / 3))
    logged = read_rows(whole / "metrics.jsonl")[0].keys()
    assert {"loss/ce", "loss/ce_complement", "loss/triplet", "loss/triplet_active", "loss/total"} <= logged
    config = read_checkpoint(whole / "checkpoint").config
    assert "architecture" not in config
    assert config["fgdemo"]["network"] == "voting"
    assert config["fgdemo"]["network_args"]["settings"]["dilations"] == [1]
    classifier = load(whole / "checkpoint", device="cpu")
    assert classifier.network.settings.merger
    picture = tmp_path / "picture.png"

    Image.fromarray((load_digits().images[0] * 15).astype("uint8")).convert("RGB").save(picture)
    assert classifier.predict([picture])[0].classes[0].probability > 0
    capsys.readouterr()
    words = ["--data", "digits", "--checkpoint", str(whole / "checkpoint"), "--out", str(tmp_path / "index")]
    assert main(["index", *words, "--workers", "0"]) == 2
    assert "--encoder" in capsys.readouterr().err


def test_two_processes_share_their_quotas(tmp_path: Path) -> None:
    """Picks of both processes count: the quotas of half batches on two follow those of whole ones on one."""
    words = ["--epochs", "1", "--quota-warmup", "0", "--quota-rate", "0.3", "--opt", "sgd", "--lr", "1e-9"]
    words += ["--ema", "0", "--export", "false", "--encoder", "test_vit", "--encoder-args", '{"depth": 4}']
    words += ["--img-size", "64"]
    rates = []
    for name, launcher, size in (("one", None, "256"), ("two", TWO, "128")):
        more = {} if launcher is None else {"launcher": launcher}
        options = (*SMALL, *words, "--batch-size", size, "--output", str(tmp_path / name))
        code, _, err = finish(start("voting", *options, **more))
        assert code == 0, err
        rates.append(load_state(list_states(tmp_path / name / "state")[-1]).tensors["model"]["quotas.rates"])
    assert not torch.equal(rates[0], torch.full((3,), 1 / 3))
    torch.testing.assert_close(rates[0], rates[1], rtol=0, atol=1e-3)
