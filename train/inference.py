"""One pass over a split without gradients: every sample exactly once, over any number of processes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fgdemo.data import ImageSplit, shard_rows
from fgdemo.models import Network
from train.launch import leave_signals_to_parent


@dataclass
class Outputs:
    """What a network says about a split, in the order of its rows, on the processor, the same on every process.

    Attributes:
        index: (N,) int64 dataset indices. Pictures that cannot be read are left out.
        labels: (N,) int64 class ids.
        logits: (N, C) float32.
        embeddings: (N, D) float32, as the network gives them (not normalised).
    """

    index: Tensor
    labels: Tensor
    logits: Tensor
    embeddings: Tensor


@torch.inference_mode()
def run_split(
    accelerator: Accelerator,
    network: Network,
    split: ImageSplit,
    *,
    batch_size: int,
    workers: int,
    full_precision: bool = False,
    epoch: int = 0,
) -> Outputs:
    """Logits and embeddings of every sample of `split`, each asked for as (row, `epoch`).

    The transform must draw nothing, or nothing but what the split keys by epoch. The network is put into eval mode for
    the pass, and back into the mode it was in. The pass has the accelerator's precision unless `full_precision` is
    asked for.
    """
    mine = torch.from_numpy(shard_rows(len(split), accelerator.process_index, accelerator.num_processes))
    loader = DataLoader(
        Subset(split, [(row, epoch) for row in mine.tolist()]),
        batch_size=batch_size,
        num_workers=workers,
        worker_init_fn=leave_signals_to_parent,
        generator=torch.Generator(),
        pin_memory=accelerator.device.type == "cuda",
    )
    was_training = network.training
    network.eval()
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for sample in loader:
        with nullcontext() if full_precision else accelerator.autocast():
            output = network(sample.image.to(accelerator.device, non_blocking=True))
        # A copy: an embedding may be a view of all tokens, which would be held with it.
        embedding = output.embedding.to(torch.float32, copy=True)
        parts.append((sample.index, sample.label, output.logits.float(), embedding))
    network.train(was_training)
    rows = torch.from_numpy(split.rows)
    columns = [torch.cat(column) for column in zip(*(parts or [_no_rows(accelerator, network)]), strict=True)]
    # An unreadable picture was replaced by another one: its row must not count that one twice.
    readable = columns[0] == rows[mine]
    columns = [column[readable.to(column.device)] for column in columns]
    index, labels, logits, embeddings = (gather_rows(accelerator, column) for column in columns)
    order = index.argsort()
    return Outputs(index[order], labels[order], logits[order], embeddings[order])


def gather_rows(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """Concatenate over processes along dimension 0, which may differ; the result is on the processor."""
    if accelerator.num_processes == 1:
        return tensor.cpu()
    tensor = tensor.to(accelerator.device)
    count = torch.tensor([len(tensor)], device=accelerator.device)
    counts = accelerator.gather(count).tolist()
    padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    blocks = accelerator.gather(padded).cpu().split(max(counts))
    return torch.cat([block[:size] for block, size in zip(blocks, counts, strict=True)])


def _no_rows(accelerator: Accelerator, network: Network) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Empty columns, for a process that got no row of a split smaller than the number of processes."""
    device = accelerator.device
    ids = torch.zeros(0, dtype=torch.int64)
    logits = torch.zeros(0, network.num_classes, device=device)
    return ids, ids, logits, torch.zeros(0, network.encoder.dim, device=device)
