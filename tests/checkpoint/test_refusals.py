"""Every way in which a checkpoint can be wrong is one sentence that names the file and what is wrong."""

from __future__ import annotations

import json
import pickle
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fgdemo.checkpoint import read_checkpoint
from fgdemo.errors import UserError

from .conftest import DIM, Damage

CONFIG, SUBCLASSES, WEIGHTS, GALLERY = "config.json", "subclasses.json", "model.safetensors", "gallery.safetensors"


def refusal(directory: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_checkpoint(directory)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_not_a_checkpoint_folder(tmp_path: Path, damage: Damage):
    assert "does not exist" in refusal(tmp_path / "nowhere")
    assert "is a file, not a folder" in refusal(damage.directory / CONFIG)
    (tmp_path / "empty").mkdir()
    assert "config.json, model.safetensors" in refusal(tmp_path / "empty")


@pytest.mark.parametrize("name", [CONFIG, SUBCLASSES, WEIGHTS, GALLERY, "README.md"])
def test_missing_file(damage: Damage, name: str):
    (damage.directory / name).unlink()
    assert f"{name} is missing" in refusal(damage.directory)
    (damage.directory / name).mkdir()
    assert f"{name} is missing" in refusal(damage.directory)


def test_pickle_beside_or_in_place_of_safetensors(damage: Damage, tmp_path: Path):
    proof = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (proof,)

    for protocol in range(2, 6):
        (damage.directory / WEIGHTS).write_bytes(pickle.dumps(Payload(), protocol=protocol))
        damage.rehash(WEIGHTS)
        sentence = refusal(damage.directory)
        assert f"{WEIGHTS}: this is a pickle, which is never opened" in sentence
    torch.save({"w": torch.zeros(1)}, damage.directory / WEIGHTS)
    damage.rehash(WEIGHTS)
    assert "this is a pickle" in refusal(damage.directory)
    (damage.directory / WEIGHTS).rename(damage.directory / "pytorch_model.bin")
    assert "has pytorch_model.bin but no model.safetensors; pickles are never opened" in refusal(damage.directory)
    assert not proof.exists()


def header(content: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(content)) + content + body


ONE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
MALFORMED = {
    "empty": b"",
    "too small": b"\x01\x02",
    "header too large": struct.pack("<Q", 1 << 40) + b"{}",
    "header beyond the file": struct.pack("<Q", 100) + b"{}",
    "not UTF-8": header(b"\xff\xfe{}"),
    "not JSON": header(b"{{{{"),
    "buffer not covered": header(ONE, b"\x00" * 8),
    "buffer too short": header(ONE, b"\x00" * 2),
    "shape does not fit": header(ONE.replace(b"[1]", b"[3]"), b"\x00" * 4),
    "overflowing shape": header(ONE.replace(b"[1]", b"[9223372036854775807,9]"), b"\x00" * 4),
    "unknown type": header(ONE.replace(b"F32", b"X99"), b"\x00" * 4),
    "hole": header(ONE.replace(b"[0,4]", b"[4,8]"), b"\x00" * 8),
    "offsets reversed": header(ONE.replace(b"[0,4]", b"[4,0]"), b"\x00" * 4),
    "text": b"<html>404</html>" * 4,
}


@pytest.mark.parametrize("name", [WEIGHTS, GALLERY])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_safetensors(damage: Damage, name: str, case: str):
    (damage.directory / name).write_bytes(MALFORMED[case])
    damage.rehash(name)
    assert f"{name}: this is not a valid safetensors file" in refusal(damage.directory)


@pytest.mark.parametrize("name", [WEIGHTS, GALLERY])
def test_one_flipped_bit(damage: Damage, name: str):
    content = bytearray((damage.directory / name).read_bytes())
    content[-1] ^= 1
    (damage.directory / name).write_bytes(content)
    assert f"{name}: its SHA-256 is not the one in config.json" in refusal(damage.directory)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": 1, "a": 2}', 'the key "a" is given twice'),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "a JSON object is expected"),
    ],
)
@pytest.mark.parametrize("name", [CONFIG, SUBCLASSES])
def test_bad_json(damage: Damage, name: str, content: bytes, problem: str):
    (damage.directory / name).write_bytes(content)
    sentence = refusal(damage.directory)
    assert name in sentence
    assert problem in sentence


ABSENT = object()


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("fgdemo", "schema"), 2, 'field "fgdemo.schema": version 2 is newer.*; upgrade fgdemo'),
        (("fgdemo", "schema"), "1", "an integer of at least 1 is expected, not '1'"),
        (("fgdemo", "schema"), ABSENT, "it is missing"),
        (("fgdemo",), ABSENT, 'field "fgdemo": it is missing'),
        (("num_classes",), 4, 'field "label_names": it has 3 entries where num_classes is 4'),
        (("num_classes",), True, 'field "num_classes"'),
        (("num_classes",), 0, 'field "num_classes"'),
        (("label_names",), ["a", "b", 3], 'field "label_names": a list of texts'),
        (("architecture",), ABSENT, 'field "architecture": it is missing'),
        (("pretrained_cfg",), ABSENT, 'field "pretrained_cfg": it is missing'),
        (("fgdemo", "superclass_names"), ["a"], "it has 1 entries where num_classes is 3"),
        (("fgdemo", "network"), ABSENT, 'field "fgdemo.network"'),
        (("fgdemo", "method"), "", 'field "fgdemo.method"'),
        (("fgdemo", "labels"), "some", 'field "fgdemo.labels": "classes" or "none"'),
        (("fgdemo", "labels"), ["classes"], 'field "fgdemo.labels"'),
        (("fgdemo", "preprocessing", "input_size"), [3, 32], "fgdemo.preprocessing.input_size"),
        (("fgdemo", "preprocessing", "input_size"), [1, 32, 32], "3 channels here, not 1"),
        (("fgdemo", "preprocessing", "std"), [0.1, 0, 0.1], "fgdemo.preprocessing.std"),
        (("fgdemo", "preprocessing", "crop_pct"), -1, "fgdemo.preprocessing.crop_pct"),
        (("fgdemo", "embedding", "dim"), DIM + 1, 'gallery.*field "embeddings": its shape is'),
        (("fgdemo", "embedding", "metric"), "euclid", "fgdemo.embedding.metric"),
        (("fgdemo", "novelty"), ABSENT, 'field "fgdemo.novelty": it is missing'),
        (("fgdemo", "novelty", "threshold"), "far", "fgdemo.novelty.threshold"),
        (("fgdemo", "novelty", "quantile"), 1.5, "fgdemo.novelty.quantile"),
        (("fgdemo", "novelty", "measured"), {}, "fgdemo.novelty.measured"),
        (("fgdemo", "novelty", "measured"), [{"data": "x", "flagged": 2, "n": 1}], r"measured\[0\].flagged"),
        (("fgdemo", "metrics"), {}, "fgdemo.metrics"),
        (("fgdemo", "metrics", 1, "split"), "dev", r"fgdemo.metrics\[1\].split"),
        (("fgdemo", "metrics", 0, "value"), None, r"fgdemo.metrics\[0\].value"),
        (("fgdemo", "metrics", 0, "n"), 0, r"fgdemo.metrics\[0\].n"),
        (("fgdemo", "sha256", WEIGHTS), "abc", "fgdemo.sha256.model.safetensors"),
        (("fgdemo", "sha256", GALLERY), "0" * 64, "gallery.safetensors: its SHA-256"),
    ],
)
def test_bad_config(damage: Damage, path: tuple[Any, ...], value: Any, expected: str):
    damage.json(CONFIG, *path, value=value, remove=value is ABSENT)
    with pytest.raises(UserError, match=expected):
        read_checkpoint(damage.directory)
    refusal(damage.directory)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("schema",), 9, 'subclasses.json, field "schema": version 9 is newer'),
        (("next_id",), 7, r'classes\[0\].subclasses\[0\].id": 7 is repeated or not below next_id, 7'),
        (("next_id",), -1, "next_id"),
        (("classes",), {}, "a list of objects"),
        (("classes", 0, "class_id"), 3, "repeated or beyond the 3 classes"),
        (("classes", 1, "class_id"), 0, "repeated or beyond the 3 classes"),
        (("classes", 0, "k"), 5, r'classes\[0\].k": 5 is not the number of subclasses listed, 2'),
        (("classes", 1, "subclasses", 0, "id"), 4, "4 is repeated"),
        (("classes", 1, "subclasses", 0, "id"), 8, 'field "centroid_ids"'),
        (("classes", 1, "subclasses", 0, "name"), 8, r'classes\[1\].subclasses\[0\].name": a text'),
        (("classes", 1, "subclasses", 0, "size"), 1.5, "size"),
        (("classes", 1, "subclasses", 0, "silhouette"), "good", "silhouette"),
        (("classes", 1), {"class_id": 1, "k": 0, "chosen_by": "x", "scores": {}, "subclasses": []}, "centroid_ids"),
    ],
)
def test_bad_subclasses(damage: Damage, path: tuple[Any, ...], value: Any, expected: str):
    damage.json(SUBCLASSES, *path, value=value)
    with pytest.raises(UserError, match=expected):
        read_checkpoint(damage.directory)
    refusal(damage.directory)


def changed(name: str, index: Any, value: Any) -> Any:
    """A change of one entry of one gallery tensor."""

    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | None]:
        tensor = tensors[name].clone()
        tensor[index] = value
        return {name: tensor}

    return change


def replaced_keys(*keys: bytes) -> Any:
    """The first keys of the gallery replaced by others."""

    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | None]:
        data, bounds = bytes(tensors["keys"].tolist()), tensors["key_offsets"].tolist()
        items = [data[a:b] for a, b in pairwise(bounds)]
        items[: len(keys)] = keys
        ends = torch.tensor([0, *(len(item) for item in items)]).cumsum(0)
        return {"keys": torch.tensor(list(b"".join(items)), dtype=torch.uint8), "key_offsets": ends}

    return change


def without(name: str) -> Any:
    return lambda tensors: {name: None}


def cast(name: str, dtype: torch.dtype) -> Any:
    return lambda tensors: {name: tensors[name].to(dtype)}


def cut(name: str) -> Any:
    return lambda tensors: {name: tensors[name][:-1].clone()}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("split"), 'field "split": this tensor is missing'),
        (lambda t: {"more": torch.zeros(1)}, 'field "more": this tensor does not belong'),
        (cast("embeddings", torch.float32), 'field "embeddings": its type is torch.float32'),
        (cut("embeddings"), 'field "embeddings": its shape is .* not 20 x 6'),
        (cut("class_id"), "its shape is"),
        (lambda t: {"class_id": torch.tensor(3, dtype=torch.int32)}, "its shape is"),
        (lambda t: {"split": t["split"][:, None]}, 'field "split": its shape is'),
        (cut("key_offsets"), 'field "key_offsets": its shape is'),
        (cut("centroids"), 'field "centroids": its shape is .* not 3 x 6'),
        (changed("embeddings", (5, 2), float("nan")), "row 5 holds NaN or infinity"),
        (changed("embeddings", 5, 1.0), "row 5 is not of unit length"),
        (changed("centroids", (1, 2), float("inf")), 'field "centroids": row 1 holds NaN'),
        (changed("class_id", 4, 3), 'field "class_id": row 4 is 3, outside 0 to 2'),
        (changed("class_id", 4, -1), 'field "class_id": row 4 is -1'),
        (changed("split", 4, 3), 'field "split": row 4 is 3'),
        (changed("subclass_id", 4, 6), "row 4 has the id 6, which subclasses.json does not list"),
        (changed("subclass_id", 4, 99), "row 4 has the id 99, which subclasses.json does not list"),
        (changed("subclass_id", 4, 5), "row 4 has the id 5, a subclass of another class"),
        (changed("centroid_ids", 0, 5), 'field "centroid_ids"'),
        (changed("key_offsets", 3, 0), 'field "key_offsets": offsets must rise'),
        (changed("key_offsets", 0, 1), 'field "key_offsets": offsets must rise'),
        (changed("thumbnail_offsets", -1, 10**9), 'field "thumbnail_offsets": offsets must rise'),
        (replaced_keys(b"\xff"), 'field "keys": a sample key is not UTF-8'),
        (replaced_keys(b""), "not a path inside a data folder"),
        (replaced_keys(b"/etc/passwd"), '"/etc/passwd" is not a path inside a data folder'),
        (replaced_keys(b"C:/x"), "not a path inside a data folder"),
        (replaced_keys(b"a/../../b"), "not a path inside a data folder"),
        (replaced_keys(b".."), "not a path inside a data folder"),
        (replaced_keys(b"a\x00b"), "not a path inside a data folder"),
        (replaced_keys(b"same", b"same"), "two samples have the same key"),
    ],
)
def test_bad_gallery(damage: Damage, change: Any, expected: str):
    damage.tensors(GALLERY, **change(load_file(damage.directory / GALLERY)))
    with pytest.raises(UserError, match=expected):
        read_checkpoint(damage.directory)
    assert f'{GALLERY}, field "' in refusal(damage.directory)


@pytest.mark.parametrize("key", [b"a..b/c", b"..a", b"x:y", "ü/\u202e.png".encode()])
def test_unusual_keys_that_are_fine(damage: Damage, key: bytes):
    damage.tensors(GALLERY, **replaced_keys(key)(load_file(damage.directory / GALLERY)))
    read_checkpoint(damage.directory)


def test_a_zero_embedding_is_kept(damage: Damage):
    damage.tensors(GALLERY, **changed("embeddings", 2, 0.0)(load_file(damage.directory / GALLERY)))
    read_checkpoint(damage.directory)


def test_duplicate_tensor_names_do_not_pass(damage: Damage):
    # safetensors itself loads a header with a repeated name; the layout or the hash must still hold.
    tensors = load_file(damage.directory / GALLERY)
    save_file(tensors, damage.directory / GALLERY)
    content = (damage.directory / GALLERY).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    names = json.loads(content[8 : 8 + size])
    split = json.dumps(names["split"])
    text = content[8 : 8 + size].rstrip().replace(b"{", b'{"split":' + split.encode() + b",", 1)
    text += b" " * (-len(text) % 8)
    (damage.directory / GALLERY).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    assert "its SHA-256 is not the one" in refusal(damage.directory)
