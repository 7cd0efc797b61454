"""Pictures a second of the engine and of a plain loop, in turns, in one run.

python -m tests.benchmarks.engine --data flowers102 --data-root DIR --cache

Same network, batches, augmentation, optimiser, precision and number of loader workers; neither validates. What comes
before the first epoch (network, decoded pictures) is not timed. The engine also does what a plain loop does not: it
keys every draw, logs, and saves its state after every epoch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from fgdemo.data import Catalogue, ImageSplit, Preprocessing
from fgdemo.models import build_classifier
from train.data import open_catalogue, open_splits
from train.engine import Engine
from train.launch import computes_in_bf16, make_accelerator
from train.methods import Classify, DataInfo
from train.methods.mixing import MixingOptions
from train.options import AugmentOptions, DataOptions, EncoderOptions, OptimOptions, RunOptions


def plain_loop(catalogue: Catalogue, options: argparse.Namespace) -> Callable[[], None]:
    """What one writes by hand, ready to start."""
    augment = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                options.img_size, scale=(0.35, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.3, 0.3, 0.3),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    split = ImageSplit(catalogue, "train", transform=augment, cache=options.cache)
    if options.cache:
        split.preload()
    loader = DataLoader(
        split, batch_size=options.batch_size, shuffle=True, drop_last=True, num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )  # fmt: skip
    network = build_classifier(options.encoder, num_classes=len(split.class_names), img_size=options.img_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)

    def run() -> None:
        for _ in range(options.epochs):
            for sample in loader:
                with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
                    loss = F.cross_entropy(network(sample.image).logits.float(), sample.label)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return run


def engine_loop(catalogue: Catalogue, options: argparse.Namespace, folder: Path) -> Callable[[], None]:
    """The same through the engine, ready to start."""
    run = RunOptions(precision=options.precision, device="cpu", trackers="none")
    optim = OptimOptions(epochs=options.epochs, batch_size=options.batch_size)
    data = DataOptions(data=options.data, cache=options.cache)
    method = Classify(MixingOptions(), DataInfo.of(catalogue, "fine"))
    network = method.build(EncoderOptions(encoder=options.encoder, pretrained=False, img_size=options.img_size))
    preprocessing = Preprocessing.from_data_config(network.encoder.data_config)
    train, _ = open_splits(catalogue, data, AugmentOptions(), preprocessing, 0)
    engine = Engine(
        make_accelerator(run), method, network, train, None,
        optim=optim, run=run, preprocessing=preprocessing, workers=options.workers, identity={}, folder=folder,
    )  # fmt: skip
    return engine.fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="flowers102")
    parser.add_argument("--data-root")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--img-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", action="store_true", help="both keep decoded pictures, as recipes do")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=2, help="epochs of one round")
    parser.add_argument("--precision", default="bf16" if computes_in_bf16("cpu") else "no", choices=("no", "bf16"))
    options = parser.parse_args()
    catalogue = open_catalogue(DataOptions(data=options.data, data_root=options.data_root), 0)
    pictures = len(catalogue.rows("train")) // options.batch_size * options.batch_size * options.epochs
    rates: dict[str, list[float]] = {"plain loop": [], "engine": []}
    order = list(rates)
    for _ in range(options.rounds):
        for name in order:
            with tempfile.TemporaryDirectory() as folder:
                engine = name == "engine"
                loop = engine_loop(catalogue, options, Path(folder)) if engine else plain_loop(catalogue, options)
                began = time.perf_counter()
                loop()
                rates[name].append(pictures / (time.perf_counter() - began))
            print(f"{name}: {rates[name][-1]:.1f} pictures/s", flush=True)
        # the next round the other way round: a machine that grows faster or slower favours neither
        order.reverse()
    ratios = [engine / plain for plain, engine in zip(*rates.values(), strict=True)]
    print(f"engine / plain loop: median {statistics.median(ratios):.3f}, all {[round(r, 3) for r in ratios]}")


if __name__ == "__main__":
    main()
