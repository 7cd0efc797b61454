"""Subclasses found inside the coarse classes, against the fine labels that training never saw.

Every division is learned on training pictures and judged on held-out ones, each of which goes to the nearest centroid
inside its coarse class, as the app assigns a picture. Only coarse classes that hold two or more fine ones are scored,
and each of them counts the same: over the whole data set the coarse labels alone would score.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgdemo.clustering import classwise_kmeans
from fgdemo.errors import UserError
from train.checkpoint_parts import Rule
from train.evaluation.controls import Features, embeddings, kept_epochs, own_embeddings, raw_features, untrained
from train.evaluation.divisions import (
    Division,
    Truth,
    ami_replicates,
    by_kmeans,
    by_ward,
    chance,
    k_errors,
    score,
)
from train.evaluation.outcomes import pack_replicates
from train.evaluation.ruler import Ruler
from train.evaluation.subject import Subject
from train.statistics import two_way_from_replicates

SHIPPED = "subclasses of the checkpoint"


@dataclass
class DiscoveryOptions:
    """Subclass discovery"""

    discovery: bool = False
    """score the subclasses against the fine labels that training on coarse ones never saw, beside controls"""
    controls: str | None = None
    """comma separated run folders of plain training whose kept epochs (--snapshot-every) are further controls"""
    choose_k: Rule = "silhouette"
    """how the number of subclasses is chosen where it is not given"""
    max_k: int = 12
    """most subclasses that are considered for a class"""


def measure(subject: Subject, options: DiscoveryOptions) -> dict[str, Any]:
    """Figures of the subject's subclasses and of the controls, with the oracle K and with the chosen one.

    Raises:
        UserError: the subject was trained on fine labels, or on data without two levels.
    """
    catalogue = subject.catalogue
    if subject.level != "coarse" or catalogue.hierarchy.is_flat:
        raise UserError(
            f"--discovery scores training on coarse labels, and {subject.target} saw the {subject.level} labels of "
            f"{catalogue.name}: train with --labels coarse, on data with two levels."
        )
    rows = (subject.outputs(split).index.numpy() for split in ("train", subject.split))
    truth = Truth.of(*((catalogue.coarse[index], catalogue.fine[index]) for index in rows))
    mine = own_embeddings("k-means on its embedding", subject)
    chosen = classwise_kmeans(
        mine.train, truth.train_coarse, select=options.choose_k, max_k=options.max_k, seed=subject.seed
    ).chosen
    chosen = np.pad(chosen, (0, len(truth.counts) - len(chosen)))
    wanted = {"oracle": truth.counts, "chosen": chosen}
    own = by_kmeans(mine, truth, wanted, seed=subject.seed, control=False)
    divisions = [*own, _shipped(subject, mine, truth), *_controls(subject, options, truth, wanted)]
    return {
        "split": subject.split,
        "coarse_classes": int((truth.counts > 0).sum()),
        "scored_classes": len(truth.scored),
        "fine_classes": int(truth.counts[truth.scored].sum()),
        "pictures": int(np.isin(truth.held_coarse, truth.scored).sum()),
        "k": {"criterion": options.choose_k, **k_errors(chosen, truth.counts)},
        "ours": [score(d, truth) for d in divisions if not d.control],
        "controls": [score(d, truth) for d in divisions if d.control] + [chance(d, truth) for d in own],
        **_against_best_control(divisions, truth, (catalogue.name, subject.split)),
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The table for people."""
    rows = [
        f"  discovery on {result['split']}: {result['fine_classes']} fine classes inside {result['scored_classes']} of "
        f"{result['coarse_classes']} coarse ones, {result['pictures']} pictures, means over the coarse classes",
        f"    {'':<29}{'K':<8}{'AMI':>6}{'ARI':>7}{'acc.':>7}{'usage':>7}   AMI on train",
    ]
    for side in ("ours", "controls"):
        for row in sorted(result[side], key=lambda row: (row["k"] != "oracle", -row["ami"])):
            rows.append(
                f"    {row['name']:<29}{row['k']:<8}{row['ami']:6.3f}{row['ari']:7.3f}{row['accuracy']:7.3f}"
                f"{row['usage']:7.2f}   {row['train']['ami']:6.3f}{'   control' if side == 'controls' else ''}"
            )
    for given_k, found in result["against_best_control"].items():
        rows.append(
            f"    {given_k} K: AMI {found['difference']:+.3f} against the best control, {found['control']} "
            f"(95 % over pictures {found['low']:+.3f} to {found['high']:+.3f}; one training seed)"
        )
    k = result["k"]
    single = f", K = 1 kept in {100 * k['single_kept']:.0f} % of {k['single_classes']}" if k["single_classes"] else ""
    rows.append(
        f"    chosen K ({k['criterion']}): mean error {k['mean_error']:.2f}, right in {100 * k['exact']:.0f} % of "
        f"{k['classes']} classes{single}"
    )
    return rows


RULER = Ruler("discovery", DiscoveryOptions, measure, lines)


def _shipped(subject: Subject, mine: Features, truth: Truth) -> Division:
    """The subclasses as the checkpoint holds them, each picture at the nearest centroid inside its class."""
    sides = ((mine.held, truth.held_coarse), (mine.train, truth.train_coarse))
    held, train = (np.asarray(subject.gallery.nearest_subclass(x, of).id, np.int64) for x, of in sides)
    return Division(SHIPPED, False, "chosen", held, train)


def _controls(
    subject: Subject, options: DiscoveryOptions, truth: Truth, wanted: dict[str, np.ndarray]
) -> Iterator[Division]:
    """What has to be beaten, under the same numbers of clusters."""
    pixels, colours = raw_features(subject)
    yield from by_ward(pixels, truth, wanted, seed=subject.seed)
    for features in (pixels, colours, *_networks(subject, options)):
        yield from by_kmeans(features, truth, wanted, seed=subject.seed, control=True)


def _networks(subject: Subject, options: DiscoveryOptions) -> Iterator[Features]:
    """The encoder without training, and at the epochs that control runs kept."""
    runs = [name.strip() for name in (options.controls or "").split(",") if name.strip()]
    if not runs:
        yield embeddings("untrained encoder", subject, untrained(subject))
    root = subject.catalogue.root
    for run in runs:
        for name, network, preprocessing in kept_epochs(Path(run), str(root) if root else None):
            yield embeddings(f"{name} of {Path(run).name}" if len(runs) > 1 else name, subject, network, preprocessing)


def _against_best_control(divisions: list[Division], truth: Truth, key: tuple[str, str]) -> dict[str, Any]:
    """By how much the subject's own AMI exceeds that of the best control, and what later paired statistics need.

    With the oracle K the subject's division is k-means on its embedding, else that of its checkpoint.
    """
    compared: dict[str, Any] = {}
    outcomes: dict[str, Any] = {}
    for given_k in ("oracle", "chosen"):
        ours = next(d for d in reversed(divisions) if not d.control and d.given_k == given_k)
        control = max(
            (d for d in divisions if d.control and d.given_k == given_k), key=lambda d: score(d, truth)["ami"]
        )
        values = {name: score(d, truth)["ami"] for name, d in (("ours", ours), ("control", control))}
        resampled = {name: ami_replicates(d, truth, key) for name, d in (("ours", ours), ("control", control))}
        difference = values["ours"] - values["control"]
        interval = two_way_from_replicates((resampled["ours"] - resampled["control"])[None], difference)
        compared[given_k] = {
            "ours": ours.name,
            "control": control.name,
            "ami": values["ours"],
            "control_ami": values["control"],
            "difference": difference,
            "low": interval.low,
            "high": interval.high,
        }
        outcomes[f"discovery/{given_k}/ami"] = pack_replicates(resampled["ours"])
        outcomes[f"discovery/{given_k}/control_ami"] = pack_replicates(resampled["control"])
    return {"against_best_control": compared, "outcomes": outcomes}
