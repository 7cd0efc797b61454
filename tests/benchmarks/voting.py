"""The voting network beside timm's own forward pass with a linear head: time and memory, in turns, in one run.

    python -m tests.benchmarks.voting [--compile] [--backward] [--dtype bf16] [--device cuda] [--json FILE]

Both have the same encoder; the voting network has two small blocks in place of the last one. Ratios are voting / plain:
the median of pairs whose order alternates. On the processor, seconds are those that it gave to this process, whatever
else it had to do (with --threads above 1 all threads count). Memory is the peak of what torch allocates during one pass
(on the processor by the profiler's record of every allocation, on CUDA by the allocator's own count), and that with
weights and pictures. Before anything is measured, both meters are tried on cases whose answer is known.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import set_fused_attn, use_fused_attn
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fgdemo.models.votes import KERNEL, enhance, head_votes, ranking
from fgdemo.models.voting import VotingNetwork
from train.ledger import provenance

Run = Callable[[], Any]


class AttentionMatrices(TorchDispatchMode):
    """Shapes of all tensors made in the context that have two dimensions of tokens.

    What a fused kernel keeps to itself is not a tensor.
    """

    def __init__(self, patches: int, prefix: int) -> None:
        super().__init__()
        self.lengths = range(patches, patches + prefix + 1)
        self.found: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and sum(length in self.lengths for length in leaf.shape) >= 2:
                self.found.append(tuple(leaf.shape))
        return result


def peak_memory(run: Run, device: str) -> int:
    """Bytes that torch allocated during `run` at its peak, above what was there before."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        record.export_chrome_trace(str(path))
        trace = json.loads(path.read_text(encoding="utf-8"))
    events = sorted((e for e in trace["traceEvents"] if e.get("name") == "[memory]"), key=lambda e: e["ts"])
    before = events[0]["args"]["Total Allocated"] - events[0]["args"]["Bytes"]
    return max(event["args"]["Total Allocated"] for event in events) - before


def try_meters(plain: nn.Module, images: Tensor, device: str) -> None:
    """Stop unless the meter of memory knows a known peak and the look-out for matrices sees unfused attention."""
    x = torch.ones(1 << 20, device=device)

    def two_at_a_time() -> Tensor:
        y = x + 1
        z = y * 2
        del y
        return z + 1

    peak, expected = peak_memory(two_at_a_time, device), 2 * x.nbytes
    if abs(peak - expected) > 4096:
        raise SystemExit(f"the peak of two vectors of {x.nbytes} bytes was measured as {peak}")
    was_fused = bool(use_fused_attn())
    set_fused_attn(False)
    unfused = timm.create_model(plain.default_cfg["architecture"], img_size=images.shape[-1]).to(device).eval()
    set_fused_attn(was_fused)
    if not matrices_of(unfused, unfused, images[:1]):
        raise SystemExit("the attention matrices of unfused attention were not seen")


def matrices_of(network: nn.Module, net: nn.Module, images: Tensor) -> list[tuple[int, ...]]:
    """Shapes of the attention matrices of one forward pass of `network`, whose encoder is timm's `net`."""
    h, w = net.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))
    with AttentionMatrices(h * w, net.num_prefix_tokens) as seen, torch.no_grad():
        network(images)
    return seen.found


def in_turns(
    runs: tuple[Run, Run], rounds: int, least: float, device: str, warm_up: int
) -> tuple[list[float], list[float]]:
    """Seconds of one call of each, `rounds` of them; a measurement lasts at least `least` seconds."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None

    def seconds(run: Run, calls: int) -> float:
        synchronize()
        began = clock()
        for _ in range(calls):
            run()
        synchronize()
        return (clock() - began) / calls

    for run in runs:
        for _ in range(warm_up):
            run()
    calls = max(1, math.ceil(least / seconds(runs[0], 3)))
    kept: tuple[list[float], list[float]] = ([], [])
    for round_ in range(rounds):
        # every other round the other way round: a machine that grows faster or slower favours neither
        for i in (0, 1) if round_ % 2 == 0 else (1, 0):
            kept[i].append(seconds(runs[i], calls))
    return kept


def compare(runs: tuple[Run, Run], options: argparse.Namespace) -> dict[str, float]:
    """Median times of the pair, and the quartiles of their ratios (second / first)."""
    first, second = in_turns(runs, options.rounds, options.least, options.device, options.warm_up)
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "first_ms": 1e3 * statistics.median(first),
        "second_ms": 1e3 * statistics.median(second),
        "ratio": median,
        "ratio_q1": low,
        "ratio_q3": high,
        "pairs": len(ratios),
    }


def network_runs(options: argparse.Namespace, batch: int, compiled: bool) -> tuple[list[Run], list[int], int]:
    """A pass of the plain and of the voting network; bytes of weights and pictures of both; attention matrices."""
    torch.manual_seed(0)
    plain = timm.create_model(options.encoder, num_classes=options.classes, img_size=options.size)
    voting = VotingNetwork(
        options.encoder, num_classes=options.classes, img_size=options.size, settings=json.loads(options.settings)
    )
    images = torch.randn(batch, 3, options.size, options.size).to(options.device)
    networks = [network.to(options.device).train(options.backward) for network in (plain, voting)]
    try_meters(plain, images, options.device)
    matrices = len(matrices_of(voting, voting.encoder.net, images))
    labels = torch.arange(batch, device=options.device) % options.classes
    called = [torch.compile(network, fullgraph=True) if compiled else network for network in networks]
    cast = options.dtype == "bf16"

    def make(network: nn.Module, call: Callable[[Tensor], Any]) -> Run:
        def forward() -> Tensor:
            with torch.autocast(options.device, torch.bfloat16, enabled=cast):
                output = call(images)
            return output if isinstance(output, Tensor) else output.logits

        def run() -> None:
            with nullcontext() if options.backward else torch.inference_mode():
                logits = forward()
            if options.backward:
                F.cross_entropy(logits.float(), labels).backward()
                network.zero_grad(set_to_none=True)

        return run

    held = [images.nbytes + sum(t.nbytes for t in (*n.parameters(), *n.buffers())) for n in networks]
    return [make(network, call) for network, call in zip(networks, called, strict=True)], held, matrices


def votes_by_loop(row: Tensor, grid: tuple[int, int], k: int) -> Tensor:
    """One block's enhanced votes (B, N) of (B, H, N) logits, head by head and scale by scale."""
    kernel = torch.tensor(KERNEL, dtype=torch.float32, device=row.device)[None, None]
    scores = []
    for picture in row:
        votes = torch.zeros(row.shape[-1], device=row.device)
        for head in picture:
            votes[head.topk(k).indices] += 1
        laid_out = votes.reshape(1, 1, *grid)
        responses = [F.conv2d(laid_out, kernel, padding=d, dilation=d) for d in (1, 2, 4)]
        scores.append(torch.stack(responses).amax(0).flatten())
    return torch.stack(scores)


def votes_alone(options: argparse.Namespace, batch: int) -> dict[str, float]:
    """The votes of all trunk blocks: the plain loop, and ours (both sorted afterwards)."""
    shape = VotingNetwork(options.encoder, num_classes=options.classes, img_size=options.size)
    grid, k = shape.patches, shape.settings.votes
    heads, blocks = shape.encoder.num_heads, shape.encoder.num_blocks
    rows = torch.randn(blocks, batch, heads, grid[0] * grid[1], device=options.device)

    def loop() -> list[Tensor]:
        return [ranking(votes_by_loop(row, grid, k)) for row in rows]

    def ours() -> list[Tensor]:
        return [ranking(enhance(head_votes(row, k), grid)) for row in rows]

    for one, other in zip(loop(), ours(), strict=True):
        if not torch.equal(one, other):
            raise SystemExit("the loop and the batched votes differ")
    return compare((loop, ours), options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="vit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--settings", default="{}", help="of the voting network, as JSON")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--compile", action="store_true", help="also compiled, each network as one graph")
    parser.add_argument("--backward", action="store_true", help="forward and backward instead of inference")
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30, help="pairs")
    parser.add_argument("--warm-up", type=int, default=5, help="untimed calls of each before the first pair")
    parser.add_argument("--least", type=float, default=0.2, help="seconds of one measurement")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    about = {**provenance(), "threads": str(options.threads)}
    result: dict[str, Any] = {"about": about, "options": {k: str(v) for k, v in vars(options).items()}, "networks": []}
    print(f"{options.encoder} at {options.size}, {options.dtype}, {about['machine']}, {options.threads} threads")
    print(f"{'':<12} {'batch':>5} {'plain ms':>9} {'voting ms':>9} {'ratio':>6}  {'quartiles':<14} {'memory':>7} above")
    for batch in options.batch:
        for compiled in (False, True) if options.compile else (False,):
            runs, held, matrices = network_runs(options, batch, compiled)
            row = compare(tuple(runs), options)
            above = [peak_memory(run, options.device) for run in runs]
            total = [a + b for a, b in zip(above, held, strict=True)]
            row |= {
                "batch": batch, "compiled": compiled, "attention_matrices": matrices,
                "memory": total, "memory_ratio": total[1] / total[0],
                "memory_above": above, "memory_above_ratio": above[1] / above[0],
            }  # fmt: skip
            result["networks"].append(row)
            print(
                f"{'compiled' if compiled else 'eager':<12} {batch:>5} {row['first_ms']:>9.2f} "
                f"{row['second_ms']:>9.2f} {row['ratio']:>6.3f}  {row['ratio_q1']:.3f} to {row['ratio_q3']:.3f} "
                f"{row['memory_ratio']:>7.3f} {row['memory_above_ratio']:.3f}"
                + (f"  {matrices} ATTENTION MATRICES" if matrices else ""),
                flush=True,
            )
    print("memory: peak with weights and pictures, and above them, voting / plain")
    result["votes"] = []
    for batch in options.batch:
        row = {"batch": batch, **votes_alone(options, batch)}
        result["votes"].append(row)
        print(
            f"votes alone, batch {batch}: loop {row['first_ms']:.2f} ms, ours {row['second_ms']:.2f} ms, "
            f"{1 / row['ratio']:.1f} times as fast"
        )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
