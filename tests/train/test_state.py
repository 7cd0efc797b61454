"""Training states: complete, checked, pruned; a damaged one is refused by name."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
import torch

from fgdemo.errors import UserError
from train.state import (
    StateWriter,
    TrainingState,
    list_states,
    load_state,
    pack_optimizer,
    save_state,
    unpack_optimizer,
)


def make_state(step: int, size: int = 10) -> TrainingState:
    generator = torch.Generator().manual_seed(step)
    weights = torch.randn(size, generator=generator)
    return TrainingState(step, {"model": {"w": weights, "n": torch.tensor(step)}, "method": {}}, {"epoch": step})


def test_round_trip(tmp_path: Path) -> None:
    path = save_state(tmp_path, make_state(7), keep=2)
    state = load_state(path)
    assert state.step == 7
    assert state.info == {"epoch": 7}
    assert torch.equal(state.tensors["model"]["w"], make_state(7).tensors["model"]["w"])
    assert state.tensors["method"] == {}


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (5, 10, 100, 1000):
        save_state(tmp_path, make_state(step), keep=2)
    assert [path.name for path in list_states(tmp_path)] == ["step_000000100", "step_000001000"]


def test_writing_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_state(tmp_path, make_state(3, size=4), keep=2)
    path = save_state(tmp_path, make_state(3, size=6), keep=2)
    assert path.name == "step_000000003"
    assert load_state(path).tensors["model"]["w"].shape == (6,)


@pytest.mark.parametrize("name", ["model.safetensors", "info.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_named(tmp_path: Path, name: str, damage: str) -> None:
    path = save_state(tmp_path, make_state(1), keep=1)
    file = path / name
    data = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    with pytest.raises(UserError, match=name):
        load_state(path)


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json"):
        load_state(tmp_path)
    (tmp_path / "manifest.json").write_text('{"version": 99, "step": 1, "files": {}}')
    with pytest.raises(UserError, match="version 99"):
        load_state(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="damaged"):
        load_state(tmp_path)


def test_a_full_disk_leaves_the_state_before(tmp_path: Path) -> None:
    save_state(tmp_path, make_state(1), keep=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    child = os.fork()
    if child == 0:
        # In a child, since the limit holds for the whole process: files of at most 4 kB can be written.
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            save_state(tmp_path, make_state(2, size=100_000), keep=1)
        except UserError as error:
            os._exit(17 if "Nothing was saved" in str(error) else 18)
        os._exit(19)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    assert [path.name for path in list_states(tmp_path)] == ["step_000000001"]
    assert load_state(list_states(tmp_path)[0]).step == 1
    assert not list(tmp_path.glob(".*"))


def test_the_writer_keeps_what_it_was_given(tmp_path: Path) -> None:
    """States reach the disk in order, as they were when they were handed over."""
    writer = StateWriter()
    state = make_state(1)
    before = {name: tensor.clone() for name, tensor in state.tensors["model"].items()}
    writer.save(tmp_path, state, keep=2)
    for tensor in state.tensors["model"].values():
        tensor.add_(1)
    for step in (2, 3):
        writer.save(tmp_path, make_state(step), keep=3)
    writer.flush()
    assert [path.name[-1] for path in list_states(tmp_path)] == ["1", "2", "3"]
    for name, tensor in load_state(list_states(tmp_path)[0]).tensors["model"].items():
        assert torch.equal(tensor, before[name])


def test_the_writer_reports_a_fault_of_the_disk(tmp_path: Path) -> None:
    writer = StateWriter()
    (tmp_path / "file").write_text("")
    writer.save(tmp_path / "file", make_state(1), keep=1)
    with pytest.raises(UserError, match="Nothing was saved"):
        writer.flush()
    writer.save(tmp_path / "fine", make_state(2), keep=1)
    writer.flush()
    assert load_state(list_states(tmp_path / "fine")[0]).step == 2


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion"])
def test_optimizer_goes_on_bit_for_bit(name: str) -> None:
    from timm.optim import create_optimizer_v2

    def build() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        return model, create_optimizer_v2(model, opt=name, lr=0.1, weight_decay=0.01)

    def train(model: torch.nn.Linear, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            model(torch.full((2, 4), float(step))).pow(2).sum().backward()
            optimizer.step()

    whole, whole_optimizer = build()
    train(whole, whole_optimizer, range(6))
    first, first_optimizer = build()
    train(first, first_optimizer, range(3))
    tensors, info = pack_optimizer(first_optimizer)
    second, second_optimizer = build()
    second.load_state_dict(first.state_dict())
    unpack_optimizer(second_optimizer, tensors, info)
    train(second, second_optimizer, range(3, 6))
    assert torch.equal(whole.weight, second.weight)
