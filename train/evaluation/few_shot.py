"""Few-shot episodes over the fine classes, which training need not have seen, on frozen embeddings.

The cross-granularity protocol of SCGM (Ni et al., ICLR 2022), except that no picture is encoded twice: one clean pass
for queries and one augmented pass for each support copy serve all episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fgdemo.data import Preprocessing
from fgdemo.errors import UserError
from train.evaluation.episodes import EpisodeGroup, Episodes, draw_episodes
from train.evaluation.logistic import fit_logistic, float64_device
from train.evaluation.outcomes import pack_shares
from train.evaluation.ruler import Ruler
from train.evaluation.subject import Subject
from train.statistics import t_interval

BLOCK_BYTES = 1 << 28
"""256 MiB: as many episodes are gathered together as need no more than this in float64."""

MAX_TOTAL = (1 << 16) - 1
"""Largest denominator of packed shares."""

NEIGHBOURS = 5
MARGIN = 256 / 224
"""A support picture is resized to this many times the input before a crop of the input's size is drawn from it."""

Classifier = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]


@dataclass
class FewShotOptions:
    """Few-shot episodes over the fine classes"""

    few_shot: bool = False
    """measure few-shot accuracy on episodes drawn by number, the same for every checkpoint"""
    ways: int = 5
    """classes of an episode; 0, or more than there are: all"""
    shots: int = 1
    """support pictures of each class"""
    queries: int = 15
    """pictures of each class to be named; at most 5 where some class of the split is too small for more"""
    episodes: int = 1000
    """number of episodes"""
    intra_class: bool = False
    """take the classes of an episode from one superclass; published with --ways 0"""
    feat_norm: bool = True
    """bring embeddings to unit norm"""
    copies: int = 5
    """augmented copies that stand for each support picture; 0: the picture itself"""
    classifier: Literal["lr", "centroid", "cosine", "knn"] = "lr"
    """logistic regression (C = 1), nearest class mean by distance or by cosine, or 5 distance-weighted neighbours"""


def measure(subject: Subject, options: FewShotOptions) -> dict[str, Any]:
    """Mean accuracy with its t-interval over episodes, and the accuracy of every episode as an outcome."""
    catalogue = subject.catalogue
    if options.copies < 0:
        raise UserError(f"--copies is {options.copies}; it is at least 0.")
    if options.intra_class and catalogue.hierarchy.is_flat:
        raise UserError(f"Data set {catalogue.name} has one level of classes: leave out --intra-class.")
    clean = subject.outputs(subject.split)
    index = clean.index.numpy()
    drawn = draw_episodes(
        catalogue.fine[index],
        catalogue.coarse[index],
        ways=options.ways,
        shots=options.shots,
        queries=options.queries,
        episodes=options.episodes,
        intra_class=options.intra_class,
    )
    hflip = subject.ours["options"].get("hflip", 0.0)
    support = support_embeddings(subject, options.copies, hflip)
    device = float64_device(subject.accelerator.device)
    features = [clean.embeddings.to(device), support.to(device)]
    if options.feat_norm:
        features = [F.normalize(rows, dim=-1) for rows in features]
    accuracy, converged = score_episodes(drawn, *features, CLASSIFIERS[options.classifier])
    interval = t_interval(accuracy)
    names = catalogue.hierarchy
    ways = sorted(group.ways for group in drawn.groups)
    # Episodes of different sizes share no denominator.
    questions = ways[0] * drawn.queries if len(ways) == 1 else MAX_TOTAL
    return {
        "feature": f"{subject.ours['embedding']['space']} embedding",
        "dim": clean.embeddings.shape[1],
        "options": {name: value for name, value in asdict(options).items() if name != "few_shot"},
        "hflip": hflip if options.copies else None,
        "classes_seen_in_training": subject.level == "fine",
        "accuracy": interval.mean,
        "half_width": None if interval.high is None else interval.high - interval.mean,
        "episodes": interval.n,
        "ways_min": ways[0],
        "ways_max": ways[-1],
        "support_per_class": options.shots * max(options.copies, 1),
        "queries": drawn.queries,
        "left_out": [names.fine_names[c] for c in drawn.left_out],
        "superclasses_left_out": [names.coarse_names[c] for c in drawn.superclasses_left_out],
        "not_converged": int((~converged).sum()),
        "outcomes": {"few_shot/accuracy": pack_shares(accuracy, min(questions, MAX_TOTAL))},
    }


def setting_name(options: FewShotOptions) -> str:
    """Ways, shots and classifier, and whatever else is not the default."""
    usual = asdict(FewShotOptions())
    chosen = asdict(options)
    named = ("few_shot", "ways", "shots", "classifier")
    others = [f"{name}={value}" for name, value in chosen.items() if name not in named and value != usual[name]]
    return ", ".join([f"{options.ways}-way {options.shots}-shot {options.classifier}", *others])


def lines(result: dict[str, Any]) -> list[str]:
    """The table for people."""
    options, ways = result["options"], [result["ways_min"], result["ways_max"]]
    spread = "" if result["half_width"] is None else f" ± {100 * result['half_width']:.2f}"
    ways_text = "-".join(str(w) for w in dict.fromkeys(ways))
    kind = "fine classes of one superclass" if options["intra_class"] else "fine classes"
    norm = " of unit norm" if options["feat_norm"] else ""
    copies = f"{options['copies']} augmented copies each" if options["copies"] else "no augmented copies"
    rows = [
        f"  few-shot     {100 * result['accuracy']:.2f} %{spread} (95 % interval over {result['episodes']:,} episodes)",
        f"    {ways_text}-way {options['shots']}-shot, {kind}, {result['queries']} queries a class; {copies}",
        f"    {options['classifier']} on the {result['feature']} ({result['dim']} dimensions){norm}",
    ]
    if result["classes_seen_in_training"]:
        rows.append("    training saw these classes by name")
    if result["queries"] < options["queries"]:
        needed = options["shots"] + options["queries"]
        rows.append(f"    {result['queries']} queries: some class has fewer than {needed} pictures")
    for what, names in (("fine classes", result["left_out"]), ("superclasses", result["superclasses_left_out"])):
        if names:
            rows.append(f"    {what} left out as too small: {len(names)}")
    if result["not_converged"]:
        rows.append(f"    logistic regression did not converge in {result['not_converged']} episodes")
    return rows


def support_transform(pre: Preprocessing, hflip: float) -> Callable[[Any], Tensor]:
    """RGB picture -> (3, H, W) float32: resized to cover `MARGIN` times the input, cropped at random, mirrored.

    A random resized crop of the same share of the area would not do: no square of it fits into a 4:3 picture.
    """
    from timm.data.transforms import ResizeKeepRatio, str_to_interp_mode
    from torchvision import transforms

    size = pre.input_size[1:]
    larger = [round(side * MARGIN) for side in size]
    if pre.crop_mode == "squash":
        resize = transforms.Resize(larger, str_to_interp_mode(pre.interpolation))
    else:
        resize = ResizeKeepRatio(larger, interpolation=pre.interpolation)
    return transforms.Compose(
        [
            resize,
            transforms.RandomCrop(size),
            transforms.RandomHorizontalFlip(hflip),
            transforms.ToTensor(),
            transforms.Normalize(pre.mean, pre.std),
        ]
    )


def support_embeddings(subject: Subject, copies: int, hflip: float) -> Tensor:
    """(R, N, D) float32 embeddings of the subject's split: R = `copies` augmented ones, or the clean ones where 0.

    The crop of copy r of a picture depends on r and the picture alone, so checkpoints of one input size share it.
    """
    clean = subject.outputs(subject.split)
    if not copies:
        return clean.embeddings[None]
    images = subject.images(subject.split, support_transform(subject.preprocessing, hflip))
    outputs = [subject.encode(images, epoch=copy) for copy in range(copies)]
    if any(not torch.equal(output.index, clean.index) for output in outputs):
        raise UserError("Other pictures can be read than a moment ago: evaluate again when the files are at rest.")
    return torch.stack([output.embeddings for output in outputs])


def score_episodes(
    episodes: Episodes, clean: Tensor, support: Tensor, classifier: Classifier
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy (n,) float64 and whether the classifier converged (n,) bool, by the episodes' numbers.

    Args:
        clean: (N, D) features that queries are taken from.
        support: (R, N, D) features that support pictures are taken from, R copies of each.
    """
    count = sum(len(group.number) for group in episodes.groups)
    accuracy, converged = np.zeros(count), np.zeros(count, bool)
    for group in episodes.groups:
        pictures = group.ways * (len(support) * group.support.shape[2] + episodes.queries)
        block = max(1, BLOCK_BYTES // (8 * pictures * clean.shape[1]))
        for start in range(0, len(group.number), block):
            part = slice(start, start + block)
            where = group.number[part]
            accuracy[where], converged[where] = _score_block(group, part, clean, support, classifier)
    return accuracy, converged


def _score_block(
    group: EpisodeGroup, part: slice, clean: Tensor, support: Tensor, classifier: Classifier
) -> tuple[np.ndarray, np.ndarray]:
    (_, ways, shots), queries = group.support.shape, group.query.shape[2]
    rows = torch.from_numpy(group.support[part]).flatten(1).to(clean.device)
    asked = torch.from_numpy(group.query[part]).flatten(1).to(clean.device)
    each = torch.arange(ways, device=clean.device)
    # Copies follow one another: all classes of the first copy, then all of the second.
    shown = support[:, rows].transpose(0, 1).flatten(1, 2)
    predicted, converged = classifier(shown, each.repeat_interleave(shots).repeat(len(support)), clean[asked], ways)
    correct = (predicted == each.repeat_interleave(queries)).double().mean(1)
    return correct.cpu().numpy(), converged.cpu().numpy()


def _lr(support: Tensor, labels: Tensor, queries: Tensor, ways: int) -> tuple[Tensor, Tensor]:
    fit = fit_logistic(support, labels, ways)
    return fit.predict(queries), fit.converged


def _centroid(support: Tensor, labels: Tensor, queries: Tensor, ways: int) -> tuple[Tensor, Tensor]:
    means = _means(support, labels, ways)
    # |q - m|² without the |q|² that all classes share
    scores = queries @ means.mT - means.square().sum(-1)[:, None] / 2
    return scores.argmax(-1), _always(support)


def _cosine(support: Tensor, labels: Tensor, queries: Tensor, ways: int) -> tuple[Tensor, Tensor]:
    return (queries @ F.normalize(_means(support, labels, ways), dim=-1).mT).argmax(-1), _always(support)


def _knn(support: Tensor, labels: Tensor, queries: Tensor, ways: int) -> tuple[Tensor, Tensor]:
    """Votes weighted by 1 / distance; a neighbour at distance 0 silences all that are not."""
    distances = torch.cdist(queries.double(), support.double(), compute_mode="donot_use_mm_for_euclid_dist")
    nearest, rows = distances.topk(min(NEIGHBOURS, support.shape[1]), largest=False)
    same = nearest == 0
    votes = torch.where(same.any(-1, keepdim=True), same.double(), 1 / nearest)
    scores = votes.new_zeros(*votes.shape[:2], ways).scatter_add_(2, labels[rows], votes)
    return scores.argmax(-1), _always(support)


def _means(support: Tensor, labels: Tensor, ways: int) -> Tensor:
    """(E, W, D) mean of each class's rows; every class has the same number."""
    return F.one_hot(labels, ways).T.to(support.dtype) @ support * (ways / len(labels))


def _always(support: Tensor) -> Tensor:
    return torch.ones(len(support), dtype=torch.bool, device=support.device)


CLASSIFIERS: dict[str, Classifier] = {"lr": _lr, "centroid": _centroid, "cosine": _cosine, "knn": _knn}
"""(support (E, M, D), labels (M,), queries (E, Q, D), W) -> predicted classes (E, Q), converged (E,)."""

RULER = Ruler("few_shot", FewShotOptions, measure, lines, setting_name)
