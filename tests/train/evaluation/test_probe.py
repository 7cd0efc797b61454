"""The linear probe against scikit-learn, how C is chosen, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from support.commands import ROOT
from support.subjects import digits_subject

from fgdemo.data import Hierarchy
from fgdemo.data.splits import stratified_holdout
from train.__main__ import main
from train.evaluation import Subject
from train.evaluation.outcomes import unpack
from train.evaluation.probe import GRID, HELD_OUT, ProbeOptions, lines, measure
from train.inference import Outputs
from train.metrics import wilson_interval

NORM, RAW = ProbeOptions(probe=True), ProbeOptions(probe=True, probe_norm=False)


@pytest.fixture
def subject() -> Subject:
    """Digits whose embedding is their own 64 pixels, with noise that makes C matter; a third of the training ones."""
    subject = digits_subject()
    subject.ours["embedding"] = {"space": "pooled"}
    catalogue = subject.catalogue
    noise = torch.Generator().manual_seed(0)
    for split in ("train", "val", "test"):
        index = torch.from_numpy(catalogue.rows(split)[:: 3 if split == "train" else 1])
        pixels = torch.from_numpy(catalogue.reader.ink[index.numpy()].reshape(-1, 64)).float() / 255
        x = pixels + 0.4 * torch.randn(pixels.shape, generator=noise)
        subject._outputs[split] = Outputs(index, torch.from_numpy(catalogue.fine)[index], torch.zeros(len(x), 10), x)
    return subject


def features(subject: Subject, split: str, norm: bool = True) -> np.ndarray:
    x = subject.outputs(split).embeddings.double()
    return (F.normalize(x, dim=1) if norm else x).numpy()


def oracle(C: float) -> LogisticRegression:
    return LogisticRegression(C=C, solver="newton-cholesky", tol=1e-8, max_iter=500)


@pytest.mark.parametrize("options", [NORM, RAW], ids=["norm", "raw"])
def test_agrees_with_scikit_learn(subject: Subject, options: ProbeOptions) -> None:
    result = measure(subject, options)
    fine = {split: subject.catalogue.fine[subject.outputs(split).index] for split in ("train", "val", "test")}
    x = {split: features(subject, split, options.probe_norm) for split in fine}
    models = [oracle(C).fit(x["train"], fine["train"]) for C in GRID]
    accuracies = [model.score(x["val"], fine["val"]) for model in models]
    found = result["levels"]["fine"]
    # rounding may decide between strengths that differ by one picture
    assert accuracies[GRID.index(found["C"])] >= max(accuracies) - 1 / 270
    expected = models[GRID.index(found["C"])].predict(x["test"]) == fine["test"]
    hits = unpack(result["outcomes"]["probe/levels/fine/top1"]).astype(bool)
    assert (hits == expected).mean() >= 0.995
    assert found["top1"] == pytest.approx(hits.mean())
    assert (found["top1_low"], found["top1_high"]) == wilson_interval(hits.sum(), 270)
    assert (found["n"], found["classes"], found["converged"]) == (270, 10, True)
    assert 0.5 < found["top1"] < 1


def test_norm_changes_the_figures(subject: Subject) -> None:
    norm, raw = measure(subject, NORM), measure(subject, RAW)
    assert norm["levels"]["fine"] != raw["levels"]["fine"]
    assert norm["options"] != raw["options"]
    assert lines(norm)[0] != lines(raw)[0]


def test_every_level_of_a_hierarchy(subject: Subject) -> None:
    result = measure(subject, NORM)
    assert list(result["levels"]) == ["fine", "coarse"]
    assert result["levels"]["coarse"]["classes"] == 2
    assert set(result["outcomes"]) == {"probe/levels/fine/top1", "probe/levels/coarse/top1"}
    names = subject.catalogue.hierarchy.fine_names
    subject.catalogue.hierarchy, subject.catalogue.coarse = Hierarchy.flat(names), subject.catalogue.fine
    flat = measure(subject, NORM)
    assert list(flat["levels"]) == ["fine"]
    assert flat["levels"]["fine"] == result["levels"]["fine"]


def test_two_classes_are_fitted_as_two_rows(subject: Subject) -> None:
    """Even and odd by the multinomial model: scikit-learn's binary one at twice the C."""
    result = measure(subject, NORM)
    coarse = {split: subject.catalogue.coarse[subject.outputs(split).index] for split in ("train", "test")}
    model = oracle(2 * result["levels"]["coarse"]["C"]).fit(features(subject, "train"), coarse["train"])
    expected = model.predict(features(subject, "test")) == coarse["test"]
    assert (unpack(result["outcomes"]["probe/levels/coarse/top1"]) == expected).mean() >= 0.995


def test_without_validation_a_part_of_train_chooses(subject: Subject) -> None:
    catalogue = subject.catalogue
    catalogue.split = np.where(catalogue.split == "val", "train", catalogue.split)
    both = [subject.outputs(split) for split in ("train", "val")]
    index = torch.cat([output.index for output in both])
    x = torch.cat([output.embeddings for output in both])
    subject._outputs = {"train": Outputs(index, index, index, x), "test": subject.outputs("test")}
    result = measure(subject, NORM)
    assert result["chosen_on"] == "0.2 of train"
    y, x = catalogue.fine[index], features(subject, "train")
    held = stratified_holdout(y, HELD_OUT, seed=0)
    found = result["levels"]["fine"]
    accuracies = [oracle(C).fit(x[~held], y[~held]).score(x[held], y[held]) for C in GRID]
    assert accuracies[GRID.index(found["C"])] >= max(accuracies) - 1 / held.sum()
    # and what is scored was fitted to all of train
    expected = oracle(found["C"]).fit(x, y).predict(features(subject, "test"))
    hits = unpack(result["outcomes"]["probe/levels/fine/top1"])
    assert (hits == (expected == catalogue.fine[subject.outputs("test").index])).mean() >= 0.995


def test_says_what_it_was_scored_on(subject: Subject) -> None:
    results = {}
    for split, words in {
        "test": "scored on test",
        "val": "scored on val, the pictures C was chosen on",
        "train": "scored on train, the pictures it was fitted to",
    }.items():
        subject.split = split
        results[split] = measure(subject, NORM)
        assert results[split]["scored_on"] == split
        assert f"    {words}" in lines(results[split])
    assert results["train"]["levels"]["fine"]["n"] == 419
    assert results["train"]["levels"]["fine"]["top1"] > results["test"]["levels"]["fine"]["top1"]


def test_says_where_it_did_not_converge(subject: Subject) -> None:
    result = measure(subject, NORM)
    assert not any("converge" in line for line in lines(result))
    result["levels"]["fine"]["converged"] = False
    assert "    fine    the fit did not converge" in lines(result)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", str(ROOT / "checkpoints" / "digits-classify"), "--out", str(tmp_path), "--device", "cpu"]
    assert main([*argv, "--workers", "0", "--threads", "1", "--probe"]) == 0
    result = json.loads((tmp_path / "test.json").read_text())
    assert result["probe"]["levels"]["fine"]["top1"] > 0.95
    assert result["outcomes"]["probe/levels/coarse/top1"]["n"] == 270
    assert f"{100 * result['probe']['levels']['fine']['top1']:.2f} %" in capsys.readouterr().out
