"""The voting network compiled, copied, and in several threads at once."""

from __future__ import annotations

import copy
import threading

import torch
import torch.nn.functional as F

SIZE = (64, 96)


@torch.no_grad()
def test_a_copy_is_independent(build_voting):
    network, images = build_voting("vit_small_patch16_dinov3", SIZE, candidates=12)
    before = network.trace(images)
    network.taps.listen(lambda row, tokens: None)
    twin = copy.deepcopy(network)
    network.taps.end()
    for ours, theirs in zip(before, twin.trace(images), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for parameter in twin.parameters():
        parameter.add_(0.1)
    twin.quotas.update(torch.tensor([1, 0]), rate=1.0, after=0)
    assert not torch.equal(twin.trace(images)[1].quotas, before[1].quotas)
    assert not torch.equal(twin.trace(images)[1].rows, before[1].rows), "rows come from the copy's own blocks"
    for ours, theirs in zip(before, network.trace(images), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@torch.no_grad()
def test_one_graph_whatever_the_quotas_and_the_thread(build_voting):
    """Compiled and not, in two threads each at once, all give what one pass alone gives."""
    network, _ = build_voting("vit_small_patch16_dinov3", SIZE, merger=True, ties="attention", candidates=12)
    batches = torch.randn(4, 2, 3, *SIZE)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    alone = [network(batch) for batch in batches]
    for ours, theirs in zip(compiled(batches[0]), alone[0], strict=True):
        assert torch.equal(ours, theirs)

    wrong = []

    def run(forward):
        with torch.no_grad():
            for _ in range(8):
                for batch, expected in zip(batches, alone, strict=True):
                    try:
                        if not torch.equal(forward(batch).logits, expected.logits):
                            wrong.append("another result")
                    except Exception as error:
                        wrong.append(repr(error))

    with torch._dynamo.config.patch(error_on_recompile=True):
        threads = [threading.Thread(target=run, args=(forward,)) for forward in (network, compiled) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        network.quotas.update(torch.tensor([1, 0]), rate=0.9, after=0)
        moved = compiled(batches[0])
        for ours, theirs in zip(moved, network(batches[0]), strict=True):
            assert torch.equal(ours, theirs)
    torch._dynamo.reset()
    assert not torch.equal(moved.logits, alone[0].logits), "quotas that do not count would prove nothing"


@torch.no_grad()
def test_a_compiled_pass_does_not_take_what_another_thread_listens_to(build_voting):
    """Traced while a pass of another thread is under way."""
    network, images = build_voting("test_vit", SIZE, selection="random")
    expected, strays = network(images), []
    listening, done = threading.Event(), threading.Event()

    def other():
        network.taps.listen(lambda row, tokens: strays.append(row))
        listening.set()
        done.wait()
        network.taps.end()

    thread = threading.Thread(target=other)
    thread.start()
    listening.wait()
    found = torch.compile(network, fullgraph=True, backend="aot_eager")(images)
    done.set()
    thread.join()
    torch._dynamo.reset()
    assert strays == []
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_training_compiles_to_the_same_gradients(build_voting):
    network, images = build_voting("test_vit", SIZE, kernel="learned", merger=True)
    targets = torch.tensor([0, 3])
    gradients = []
    for forward in (network.train(), torch.compile(network, fullgraph=True, backend="aot_eager")):
        network.zero_grad()
        output = forward(images)
        (F.cross_entropy(output.logits, targets) + F.cross_entropy(output.cross_logits, targets)).backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    torch._dynamo.reset()
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)
