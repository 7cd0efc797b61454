"""Few-shot evaluation of a checkpoint: batched logistic regression beside scikit-learn, caching beside re-encoding.

    python -m tests.benchmarks.few_shot checkpoints/digits-classify [--ways 5] [--intra-class]

Both regressions get the same features of the same episodes, block by block in turns. The time of an evaluation that
decodes and encodes the pictures of every episode anew is measured on a few episodes and extrapolated to all. All in one
process; on the processor, seconds are those that it gave to this process, whatever else it had to do.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fgdemo.data import load_training_catalogue
from train.evaluation import Subject, few_shot
from train.evaluation.episodes import draw_episodes
from train.evaluation.few_shot import CLASSIFIERS, FewShotOptions, score_episodes, support_embeddings, support_transform
from train.evaluation.subject import load_network, open_target
from train.launch import make_accelerator
from train.options import RunOptions


class SideBySide:
    """A classifier of episodes that answers as ours does, and asks scikit-learn too."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds = {"ours": 0.0, "scikit-learn": 0.0}
        self.theirs: list[float] = []
        self.equal: list[float] = []
        self.unconverged = 0

    def __call__(self, support: Tensor, labels: Tensor, queries: Tensor, ways: int) -> tuple[Tensor, Tensor]:
        began = self.clock()
        predicted, converged = CLASSIFIERS["lr"](support, labels, queries, ways)
        self.seconds["ours"] += self.clock() - began
        arrays = (support.cpu().numpy(), queries.cpu().numpy())
        y, truth = labels.cpu().numpy(), np.repeat(np.arange(ways), queries.shape[1] // ways)
        began = self.clock()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            # Of two classes scikit-learn makes a binary model, which equals the multinomial one at twice the C.
            model = LogisticRegression(C=2.0 if ways == 2 else 1.0, max_iter=1000)
            theirs = [model.fit(x, y).predict(q) for x, q in zip(*arrays, strict=True)]
        self.seconds["scikit-learn"] += self.clock() - began
        self.unconverged += sum(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        for ours, other in zip(predicted.cpu().numpy(), theirs, strict=True):
            self.theirs.append(float((other == truth).mean()))
            self.equal.append(float((other == ours).mean()))
        return predicted, converged


def open_subject(options: argparse.Namespace) -> Subject:
    run, checkpoint = open_target(options.checkpoint)
    accelerator = make_accelerator(RunOptions(device=options.device, threads=options.threads))
    return Subject(
        target=options.checkpoint,
        split="test",
        run=run,
        accelerator=accelerator,
        checkpoint=checkpoint,
        network=load_network(checkpoint).to(accelerator.device),
        catalogue=load_training_catalogue(checkpoint.config["fgdemo"]["training"], options.data_root),
        batch_size=64,
        workers=0,
    )


@torch.inference_mode()
def encode_anew(subject: Subject, support: np.ndarray, queries: np.ndarray, copies: int, hflip: float) -> int:
    """Decode, augment and encode the pictures of one episode; returns how many there were."""
    augmented = subject.images("test", support_transform(subject.preprocessing, hflip))
    shown = [(row, copy) for copy in range(copies) for row in support.reshape(-1).tolist()]
    for part in (Subset(augmented, shown), Subset(subject.images("test"), queries.reshape(-1).tolist())):
        for sample in DataLoader(part, batch_size=subject.batch_size):
            subject.network(sample.image.to(subject.accelerator.device)).embedding.cpu()
    return len(shown) + queries.size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data-root")
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--queries", type=int, default=15)
    parser.add_argument("--intra-class", action="store_true")
    parser.add_argument("--no-feat-norm", action="store_true")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--anew", type=int, default=5, help="episodes of each size that are encoded anew")
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu"))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    options = FewShotOptions(
        True, given.ways, given.shots, given.queries, given.episodes, given.intra_class, not given.no_feat_norm
    )

    subject = open_subject(given)
    clock = time.process_time if subject.accelerator.device.type == "cpu" else time.perf_counter
    # This pass also reads every picture once, so that nobody pays for a cold cache.
    catalogue, index = subject.catalogue, subject.outputs("test").index.numpy()
    hflip = subject.ours["options"].get("hflip", 0.0)
    drawn = draw_episodes(
        catalogue.fine[index], catalogue.coarse[index], ways=options.ways, shots=options.shots,
        queries=options.queries, episodes=options.episodes, intra_class=options.intra_class,
    )  # fmt: skip

    again = open_subject(given)
    began = clock()
    figures = few_shot.measure(again, options)
    whole = clock() - began
    print("\n".join(few_shot.lines(figures)))
    print(f"  all of it, encoding included: {whole:.1f} s, {len(index) * (1 + options.copies):,} pictures encoded")

    features = [subject.outputs("test").embeddings, support_embeddings(subject, options.copies, hflip)]
    if options.feat_norm:
        features = [torch.nn.functional.normalize(rows, dim=-1) for rows in features]
    contest = SideBySide(clock)
    accuracy, _ = score_episodes(drawn, *features, contest)
    ours, theirs = 100 * accuracy.mean(), 100 * np.mean(contest.theirs)
    print(f"  accuracy: ours {ours:.3f} %, scikit-learn {theirs:.3f} %, difference {abs(ours - theirs):.3f} points")
    print(f"  equal predictions: {100 * np.mean(contest.equal):.3f} %")
    ratio = contest.seconds["scikit-learn"] / contest.seconds["ours"]
    print(f"  seconds: {', '.join(f'{name} {s:.2f}' for name, s in contest.seconds.items())}; ratio {ratio:.1f}")
    print(f"  did not converge: ours {figures['not_converged']}, scikit-learn {contest.unconverged}")

    row, pictures, began = np.searchsorted(catalogue.rows("test"), index), 0, clock()
    # A few of every size, so that no size of episode is extrapolated from another.
    for group in drawn.groups:
        for i in range(min(given.anew, len(group.number))):
            pictures += encode_anew(subject, row[group.support[i]], row[group.query[i]], options.copies, hflip)
    rate = pictures / (clock() - began)
    total = sum(options.copies * group.support.size + group.query.size for group in drawn.groups)
    ceiling = total / (len(index) * (1 + options.copies))
    print(f"  re-encoding in every episode: {pictures} pictures at {rate:.0f}/s measured; EXTRAPOLATED to {total:,}")
    print(f"    ({ceiling:.1f} times as many pictures):")
    anew = total / rate
    print(f"    {anew:.0f} s, {anew / whole:.1f} times all of the above; with scikit-learn's regressions, ", end="")
    print(f"{(anew + contest.seconds['scikit-learn']) / whole:.1f} times")


if __name__ == "__main__":
    main()
