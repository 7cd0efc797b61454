"""Time of a training step of fgdcc beside one of classify, with what happens between epochs shared out over the steps.

    python -m tests.benchmarks.fgdcc [--data scenes] [--encoder resnet10t] [--epochs 4] [--rounds 5]

Both train on the same pictures with the same encoder through the same engine, one after the other in turns; the figure
is the median over rounds of the ratio of their times for the same number of epochs, the first round left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from fgdemo.data import Preprocessing
from train.data import open_catalogue, open_splits
from train.engine import Engine
from train.launch import make_accelerator
from train.methods import METHODS, DataInfo
from train.methods.fgdcc import FgdccOptions
from train.methods.mixing import MixingOptions
from train.options import AugmentOptions, DataOptions, EncoderOptions, OptimOptions, RunOptions
from train.tracking import read_rows


def seconds(name: str, own: object, options: argparse.Namespace) -> tuple[float, list[float]]:
    """Time of `fit`, and the milliseconds a step in each logged part of the last epoch."""
    run = RunOptions(device="cpu", trackers="none", log_every=5, eval_every=10**6)
    optim = OptimOptions(epochs=options.epochs, batch_size=options.batch_size)
    data = DataOptions(data=options.data, data_root=options.data_root, cache=True, labels="coarse")
    catalogue = open_catalogue(data, 0)
    torch.manual_seed(0)
    method = METHODS[name](own, DataInfo.of(catalogue, "coarse"))
    network = method.build(EncoderOptions(encoder=options.encoder, pretrained=False, img_size=options.img_size))
    preprocessing = Preprocessing.from_data_config(network.encoder.data_config)
    train, _ = open_splits(catalogue, data, AugmentOptions(), preprocessing, 0)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(
            make_accelerator(run), method, network, train, None,
            optim=optim, run=run, preprocessing=preprocessing, workers=0, identity={}, folder=Path(folder),
        )  # fmt: skip
        began = time.perf_counter()
        engine.fit()
        spent = time.perf_counter() - began
        rows = [row for row in read_rows(Path(folder) / "metrics.jsonl") if "loss/total" in row]
    last = [row for row in rows if row["epoch"] == options.epochs - 1]
    parts = [1000 * (b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairwise(last)]
    return spent, parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--data-root")
    parser.add_argument("--encoder", default="resnet10t")
    parser.add_argument("--img-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--refresh", type=int, nargs="*", default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    arms = {f"fgdcc, refresh {r}": FgdccOptions(refresh=r, ks=(1, 2, 3, 4, 5)) for r in options.refresh}
    ratios: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(options.rounds + 1):
        plain, _ = seconds("classify", MixingOptions(), options)
        for name, own in arms.items():
            spent, parts = seconds("fgdcc", own, options)
            if turn:
                ratios[name].append(spent / plain)
                thirds = len(parts) // 3 or 1
                print(
                    f"{name}: {spent:.2f} s, classify {plain:.2f} s; last epoch, ms a step: "
                    f"first third {median(parts[:thirds]):.1f}, last third {median(parts[-thirds:]):.1f}",
                    flush=True,
                )
    for name, values in ratios.items():
        print(f"{name}: median {100 * (median(values) - 1):+.1f} % over classify")


if __name__ == "__main__":
    main()
