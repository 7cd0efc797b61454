"""Files of weights: what is read, and what is refused without running any of it."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from fgdemo.errors import UserError
from fgdemo.models.encoder import Encoder


@pytest.fixture
def vit() -> nn.Module:
    return timm.create_model("test_vit", num_classes=0).eval()


def save(net: nn.Module, path: Path) -> str:
    tensors = {k: v.contiguous() for k, v in net.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".npz":
        np.savez(path, **{k: v.numpy() for k, v in tensors.items()})
    else:
        torch.save(tensors, path)
    return str(path)


def test_an_archive_of_timms_own_names(vit, tmp_path):
    encoder = Encoder("test_vit", weights=save(vit, tmp_path / "w.npz"))
    for name, tensor in vit.state_dict().items():
        assert torch.equal(encoder.net.state_dict()[name], tensor), name


class Payload:
    def __reduce__(self):
        return (os.mkdir, (str(Payload.target),))


def test_a_pickle_with_code_is_refused_and_not_run(vit, tmp_path):
    Payload.target = tmp_path / "ran"
    for file in ("evil.pth", "evil.safetensors", "evil.npz"):
        (tmp_path / file).write_bytes(pickle.dumps(Payload()))
    torch.save({"model": Payload()}, tmp_path / "evil2.pth")
    np.savez(tmp_path / "evil2.npz", **{"cls": np.ones(3), "norm/scale": np.array([Payload()], dtype=object)})
    for file in ("evil.pth", "evil2.pth", "evil.safetensors", "evil.npz", "evil2.npz"):
        with pytest.raises(UserError, match=file):
            Encoder("test_vit", weights=str(tmp_path / file))
    assert not Payload.target.exists()


def test_pickled_arrays_are_refused_in_one_sentence(tmp_path):
    np.savez(tmp_path / "w.npz", cls=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"w\.npz .*pickled objects, which are never loaded") as caught:
        Encoder("vit_base_patch16_224", weights=str(tmp_path / "w.npz"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("empty.pth", b""),
        ("text.pth", b"not weights at all"),
        ("cut.safetensors", b"\x10\x00"),
        ("empty.npz", b""),
        ("text.npz", b"not weights at all"),
        ("notes.txt", b"not weights at all"),
        ("missing.safetensors", None),
        ("missing.npz", None),
    ],
)
def test_unreadable_files_are_refused(tmp_path, file, content):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=file):
        Encoder("test_vit", weights=str(tmp_path / file))


def test_files_without_a_dictionary_of_tensors_are_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    np.savez(tmp_path / "none.npz")
    np.savez(tmp_path / "numbers.npz", cls=np.arange(3))
    np.savez(tmp_path / "raw.npz", cls=np.zeros(3, dtype="V2"))
    with (tmp_path / "array.npz").open("wb") as handle:
        np.save(handle, np.zeros(3))
    with zipfile.ZipFile(tmp_path / "bytes.npz", "w") as archive:
        archive.writestr("cls.txt", b"no array")
    for file, message in (
        ("list.pth", "cannot be loaded as weights only"),
        ("numbers.pth", "no plain dictionary of tensors"),
        ("none.npz", "no arrays"),
        ("numbers.npz", "cls as int64"),
        ("raw.npz", "cls as "),
        ("array.npz", "archive of plain arrays"),
        ("bytes.npz", "cls.txt as raw bytes"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            Encoder("test_vit", weights=str(tmp_path / file))
        assert file in str(caught.value)


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth", "w.npz"])
def test_truncated_files_are_refused(vit, tmp_path, file):
    path = save(vit, tmp_path / file)
    with open(path, "r+b") as handle:
        handle.truncate(os.path.getsize(path) // 2)
    with pytest.raises(UserError, match=file):
        Encoder("test_vit", weights=path)


def test_an_archive_with_a_flipped_byte_is_refused(vit, tmp_path):
    path = Path(save(vit, tmp_path / "w.npz"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"w\.npz cannot be read"):
        Encoder("test_vit", weights=str(path))


def test_directory_without_weights(tmp_path):
    with pytest.raises(UserError, match=r"model\.safetensors"):
        Encoder("test_vit", weights=str(tmp_path))
