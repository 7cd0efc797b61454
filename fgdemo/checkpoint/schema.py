"""What a checkpoint's two JSON files must hold; every refusal names the file, the field and the remedy."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fgdemo.errors import UserError

SCHEMA_VERSION = 1

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
GALLERY_FILE = "gallery.safetensors"
SUBCLASSES_FILE = "subclasses.json"
CARD_FILE = "README.md"
TENSOR_FILES = (WEIGHTS_FILE, GALLERY_FILE)
FILES = (CONFIG_FILE, *TENSOR_FILES, SUBCLASSES_FILE, CARD_FILE)

LABEL_KINDS = ("classes", "none")
MOST_CLUSTERS = 2**15
METRIC_SPLITS = ("train", "val", "test")
_NUMBER = re.compile(r"[1-9][0-9]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def refuse(source: Path | str, field: str, problem: str, remedy: str = "export the checkpoint again") -> NoReturn:
    """Raise the one sentence of a refused checkpoint: file, field, problem and what to do."""
    where = f'{source}, field "{field}"' if field else f"{source}"
    raise UserError(f"{where}: {problem}; {remedy}.")


def read_json(path: Path) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, no NaN or Infinity.

    Raises:
        UserError: the file cannot be read or is not such JSON.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise ValueError(f'the key "{next(k for k in keys if keys.count(k) > 1)}" is given twice')
        return dict(pairs)

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON number")

    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    except (ValueError, RecursionError) as error:
        refuse(path, "", f"this is not valid JSON ({error})")


class _Fields:
    """Typed look-ups in one JSON object, each refusal naming the dotted field."""

    def __init__(self, value: Any, source: Path | str, prefix: str = "") -> None:
        self.source, self.prefix = source, prefix
        if not isinstance(value, dict):
            refuse(source, prefix.rstrip("."), "a JSON object is expected")
        self.value: dict[str, Any] = value

    def refuse(self, name: str, problem: str, **remedy: str) -> NoReturn:
        refuse(self.source, self.prefix + name, problem, **remedy)

    def get(self, name: str, accept: Callable[[Any], bool], expected: str) -> Any:
        if name not in self.value:
            self.refuse(name, f"it is missing ({expected} is expected)")
        if not accept(self.value[name]):
            shown = repr(self.value[name])
            self.refuse(name, f"{expected} is expected, not {shown if len(shown) < 60 else shown[:57] + '...'}")
        return self.value[name]

    def text(self, name: str) -> str:
        return self.get(name, lambda v: isinstance(v, str) and v != "", "a text")

    def integer(self, name: str, least: int) -> int:
        return self.get(name, lambda v: is_integer(v) and v >= least, f"an integer of at least {least}")

    def texts(self, name: str, count: int) -> list[str]:
        values = self.get(name, lambda v: _list_of(v, lambda item: isinstance(item, str)), "a list of texts")
        if len(values) != count:
            self.refuse(name, f"it has {len(values)} entries where num_classes is {count}")
        return values

    def object(self, name: str) -> _Fields:
        return _Fields(self.get(name, lambda v: isinstance(v, dict), "an object"), self.source, f"{self.prefix}{name}.")


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return (is_integer(value) or isinstance(value, float)) and math.isfinite(value)


def _list_of(value: Any, accept: Callable[[Any], bool], count: int | None = None) -> bool:
    return isinstance(value, list) and count in (None, len(value)) and all(map(accept, value))


def check_version(fields: _Fields, name: str) -> None:
    version = fields.integer(name, 1)
    if version > SCHEMA_VERSION:
        fields.refuse(
            name,
            f"version {version} is newer than what this fgdemo reads (up to {SCHEMA_VERSION})",
            remedy="upgrade fgdemo",
        )


def validate_config(config: Any, source: Path | str = CONFIG_FILE) -> dict[str, Any]:
    """Check a whole config.json and return it; ``source`` is how refusals name the file.

    Whether ``fgdemo.network`` names a network that exists is for the registry of networks to say.

    Raises:
        UserError: a field is missing, mistyped, inconsistent with another, or of a newer schema.
    """
    root = _Fields(config, source)
    ours = root.object("fgdemo")
    check_version(ours, "schema")
    num_classes = root.integer("num_classes", 1)
    root.texts("label_names", num_classes)
    if ours.text("network") == "timm":
        root.text("architecture")
        root.object("pretrained_cfg")
    ours.object("network_args")
    ours.text("method")
    ours.object("options")
    ours.get("labels", lambda v: v in LABEL_KINDS, " or ".join(f'"{kind}"' for kind in LABEL_KINDS))
    ours.texts("superclass_names", num_classes)
    if "title" in ours.value:
        ours.text("title")
    _check_preprocessing(ours.object("preprocessing"))
    embedding = ours.object("embedding")
    embedding.text("space")
    embedding.integer("dim", 1)
    embedding.get("metric", lambda v: v == "cosine", '"cosine"')
    if ours.get("novelty", lambda v: v is None or isinstance(v, dict), "an object or null") is not None:
        novelty = ours.object("novelty")
        novelty.get("threshold", is_number, "a number")
        novelty.get("quantile", lambda v: is_number(v) and 0 < v < 1, "a number between 0 and 1")
        rates = novelty.get("measured", lambda v: isinstance(v, list), "a list")
        for position, rate in enumerate(rates):
            _check_rate(_Fields(rate, source, f"fgdemo.novelty.measured[{position}]."))
    ours.object("training")
    ours.get("metrics", lambda v: _list_of(v, lambda item: isinstance(item, dict)), "a list of objects")
    for position, metric in enumerate(ours.value["metrics"]):
        _check_metric(_Fields(metric, source, f"fgdemo.metrics[{position}]."))
    ours.object("versions")
    hashes = ours.object("sha256")
    for name in TENSOR_FILES:
        hashes.get(
            name,
            lambda v: isinstance(v, str) and _SHA256.fullmatch(v) is not None,
            "a SHA-256 in 64 hex digits",
        )
    return config


def _check_preprocessing(fields: _Fields) -> None:
    size = fields.get(
        "input_size", lambda v: _list_of(v, lambda n: is_integer(n) and n > 0, 3), "[channels, height, width]"
    )
    if size[0] != 3:
        fields.refuse("input_size", f"pictures have 3 channels here, not {size[0]}")
    fields.text("interpolation")
    fields.get("mean", lambda v: _list_of(v, is_number, 3), "three numbers")
    fields.get("std", lambda v: _list_of(v, lambda n: is_number(n) and n > 0, 3), "three positive numbers")
    fields.get("crop_pct", lambda v: is_number(v) and v > 0, "a positive number")
    fields.text("crop_mode")


def _check_metric(fields: _Fields) -> None:
    fields.get("split", lambda v: v in METRIC_SPLITS, "one of " + ", ".join(METRIC_SPLITS))
    fields.text("name")
    fields.get("value", is_number, "a number")
    fields.integer("n", 1)


def _check_rate(fields: _Fields) -> None:
    fields.text("data")
    fields.get("flagged", lambda v: is_number(v) and 0 <= v <= 1, "a share between 0 and 1")
    fields.integer("n", 1)


def validate_subclasses(subclasses: Any, num_classes: int, source: Path | str = SUBCLASSES_FILE) -> dict[str, Any]:
    """Check a whole subclasses.json and return it: ids unique in the checkpoint and below ``next_id``.

    Raises:
        UserError: a field is missing, mistyped or inconsistent, or the schema is newer.
    """
    root = _Fields(subclasses, source)
    check_version(root, "schema")
    next_id = root.integer("next_id", 0)
    root.text("engine")
    root.get("seed", is_integer, "an integer")
    if "ks" in root.value:
        root.get("ks", _are_hypotheses, f"ascending numbers of subclasses from 1 to {MOST_CLUSTERS}")
    root.get("classes", lambda v: _list_of(v, lambda item: isinstance(item, dict)), "a list of objects")
    seen_classes: set[int] = set()
    seen_ids: set[int] = set()
    for position, entry in enumerate(root.value["classes"]):
        fields = _Fields(entry, source, f"classes[{position}].")
        class_id = fields.integer("class_id", 0)
        if class_id >= num_classes or class_id in seen_classes:
            fields.refuse("class_id", f"{class_id} is repeated or beyond the {num_classes} classes")
        seen_classes.add(class_id)
        members = fields.get("subclasses", lambda v: _list_of(v, lambda m: isinstance(m, dict)), "a list of objects")
        if fields.integer("k", 0) != len(members):
            fields.refuse("k", f"{fields.value['k']} is not the number of subclasses listed, {len(members)}")
        fields.text("chosen_by")
        scores = fields.object("scores")
        for k in scores.value:
            if not _NUMBER.fullmatch(k):
                scores.refuse(k, "a number of subclasses is expected as its name")
            scores.get(k, is_number, "a number")
        for number, member in enumerate(members):
            item = _Fields(member, source, f"{fields.prefix}subclasses[{number}].")
            identity = item.integer("id", 0)
            if identity in seen_ids or identity >= next_id:
                item.refuse("id", f"{identity} is repeated or not below next_id, {next_id}")
            seen_ids.add(identity)
            item.text("name")
            item.integer("size", 0)
            for name in ("inertia", "silhouette"):
                if item.value.get(name) is not None:
                    item.get(name, is_number, "a number or null")
        _check_columns(fields, members, root.value.get("ks"))
    return subclasses


def _check_columns(fields: _Fields, members: list[dict[str, Any]], ks: list[int] | None) -> None:
    """Either no subclass of a class names its column in the head, or they are the columns of their number K."""
    given = [member["column"] for member in members if "column" in member]
    if not given:
        return
    k = len(members)
    start = first_column(ks or [], k)
    if start is None or not all(map(is_integer, given)) or sorted(given) != list(range(start, start + k)):
        fields.refuse("subclasses", f'the columns of its {k} subclasses are not those that "ks" gives {k} of them')


def first_column(ks: Sequence[int], k: int) -> int | None:
    """The first of the columns that a class with k subclasses has in a head with sum(ks) columns a class.

    Columns run over K in the order of `ks`, then over the subclasses of that K. One subclass alone has column 0 even
    where 1 is none of the K; None for other numbers that are none of them.
    """
    if k in ks:
        return sum(ks[: ks.index(k)])
    return 0 if k == 1 and ks else None


def _are_hypotheses(value: Any) -> bool:
    whole = _list_of(value, lambda k: is_integer(k) and 1 <= k <= MOST_CLUSTERS)
    return whole and value != [] and value == sorted(set(value))


def subclass_classes(subclasses: dict[str, Any]) -> dict[int, int]:
    """Class id of every subclass id, in ascending order of subclass id."""
    pairs = ((m["id"], entry["class_id"]) for entry in subclasses["classes"] for m in entry["subclasses"])
    return dict(sorted(pairs))


def title(config: dict[str, Any]) -> str:
    """One line that tells a person which checkpoint this is."""
    ours = config["fgdemo"]
    if "title" in ours:
        return ours["title"]
    return f"{ours['method']} on {ours['training'].get('dataset', 'unknown data')} ({network_label(config)})"


def network_label(config: dict[str, Any]) -> str:
    """The network as `--encoder` names it: timm's name where it has one, else that of our own network."""
    ours = config["fgdemo"]
    named = config.get("architecture", ours["network_args"].get("architecture"))
    return named if isinstance(named, str) else ours["network"]
