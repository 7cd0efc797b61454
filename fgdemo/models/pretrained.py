"""timm modules with random, published or local weights.

Local files are safetensors, or PyTorch files that load with `weights_only=True`: no code of theirs is run.
"""

from __future__ import annotations

import difflib
import json
import logging
import pickle
import re
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import HfHubHTTPError, httpx
from safetensors import SafetensorError
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model, is_model_pretrained, load_state_dict
from torch import nn

from fgdemo.errors import UserError

logger = logging.getLogger(__name__)

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
# Arguments of timm.create_model that load files, change the interface, or have a place of their own here.
RESERVED_ARGS = frozenset(
    {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "pretrained_strict"}
    | {
        "checkpoint_path",
        "cache_dir",
        "features_only",
        "out_indices",
        "feature_cls",
        "scriptable",
        "exportable",
    }
    | {"no_jit", "device", "dtype", "num_classes", "img_size", "in_chans", "use_naflex"}
)
REMEDY = (
    "give local weights with --encoder-weights FILE or start from random weights with --no-pretrained "
    "(weights=FILE or pretrained=False in Python)"
)


def check_name(name: str) -> None:
    """Refuse a name that timm does not know, with the closest ones it does.

    Raises:
        UserError: unknown architecture or unknown pretrained tag.
    """
    architecture, _, tag = name.partition(".")
    if not is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=4, cutoff=0.5)
        hint = f"; close names: {', '.join(close)}" if close else ""
        raise UserError(f"Unknown encoder {name!r}: timm {timm.__version__} has no such model{hint}.")
    tags = [n.partition(".")[2] for n in timm.list_models(f"{architecture}.*", include_tags=True)]
    if tag and tag not in tags:
        raise UserError(f"Unknown weights {tag!r} of encoder {architecture}; known: {', '.join(tags) or 'none'}.")


def check_model_args(model_args: dict[str, Any]) -> None:
    """Refuse arguments that could load a file or have an option of their own.

    Raises:
        UserError: a reserved name, or values that JSON cannot hold.
    """
    reserved = sorted(RESERVED_ARGS & set(model_args))
    if reserved:
        raise UserError(f"model_args may not contain {', '.join(reserved)}: these have options of their own.")
    try:
        json.dumps(model_args)
    except (TypeError, ValueError) as error:
        raise UserError(f"model_args must be plain JSON values: {error}.") from error


def takes_img_size(name: str) -> bool:
    """Whether the architecture is built for one input size (timm's own rule)."""
    return _published(name).fixed_input_size


def create(name: str, *, num_classes: int, img_size: tuple[int, int] | None, model_args: dict[str, Any]) -> nn.Module:
    """A timm module with random weights.

    Raises:
        UserError: timm refuses the size or the arguments.
    """
    return _create(name, num_classes, img_size, model_args)


def create_pretrained(
    name: str, *, num_classes: int, img_size: tuple[int, int] | None, model_args: dict[str, Any]
) -> nn.Module:
    """A timm module with timm's published weights; the classifier is new if its size differs.

    Raises:
        UserError: the model has no published weights, or they cannot be fetched.
    """
    if not is_model_pretrained(name):
        raise UserError(f"timm has no pretrained weights for {name}: {REMEDY}.")
    _require_reachable(name)
    try:
        return _create(name, num_classes, img_size, model_args, pretrained=True)
    except (OSError, httpx.HTTPError, HfHubHTTPError) as error:
        raise _unreachable(name) from error


def create_from_file(
    name: str,
    path: str | Path,
    *,
    num_classes: int,
    img_size: tuple[int, int] | None,
    model_args: dict[str, Any],
) -> tuple[nn.Module, bool]:
    """A timm module with the weights of a local file, and whether its classifier came from the file.

    timm's own checkpoint filter of the architecture runs on the file, so published formats of other projects
    that timm knows are converted and position tables are resampled to the grid in use. Everything but a
    classifier of another size must match exactly.

    Raises:
        UserError: unreadable file, or tensors missing, unexpected or of another shape.
    """
    path = _weights_path(Path(path))
    tensors = read_weights(path)
    published = _published(name).to_dict()
    classes_in_file = _classifier_size(tensors, published.get("classifier"))
    overlay = {
        "state_dict": tensors,
        "custom_load": False,
        "num_classes": classes_in_file,
        "label_offset": None,
    }
    source_args = _source_args(path, name)
    extra = {"pretrained_model_args": source_args} if source_args else {}
    net = _create(
        name,
        classes_in_file,
        img_size,
        model_args,
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        weights_path=path,
        **extra,
    )
    net.pretrained_cfg = net.default_cfg = published
    kept = classes_in_file == num_classes
    if not kept:
        if num_classes and classes_in_file:
            logger.info(
                "%s: classifier of %d classes dropped, a new one of %d made",
                path,
                classes_in_file,
                num_classes,
            )
        net.reset_classifier(num_classes)
    return net, kept and num_classes > 0


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file or of a PyTorch file that loads with `weights_only=True`.

    Nested training files (`model`, `state_dict`, `state_dict_ema`) and wrapper prefixes are unpacked by timm.

    Raises:
        UserError: no such file, another format, a damaged file, or a pickle that holds more than tensors.
    """
    if not path.is_file():
        raise UserError(f"No weights at {path}: give a .safetensors or weights-only .pth file.")
    if path.suffix not in WEIGHT_SUFFIXES:
        raise UserError(f"{path} is not a weights file: expected {', '.join(WEIGHT_SUFFIXES)}.")
    try:
        tensors = load_state_dict(str(path))
    except SafetensorError as error:
        raise UserError(f"{path} is not a valid safetensors file: {error}.") from error
    except (
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        AttributeError,
        KeyError,
        OSError,
    ) as error:
        raise UserError(
            f"{path} cannot be loaded as weights only (damaged, or a pickle with code, which is never run): "
            "convert it to .safetensors."
        ) from error
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise UserError(f"{path} holds no plain dictionary of tensors: export the weights alone.")
    return tensors


def describe_mismatch(error: RuntimeError, limit: int = 3) -> str:
    """The first few names of each kind in the message of torch's strict `load_state_dict`."""
    text = str(error)
    parts = []
    for title, pattern in (
        ("missing", r"Missing key\(s\) in state_dict: (.*?)\. *(?:\n|$)"),
        ("unexpected", r"Unexpected key\(s\) in state_dict: (.*?)\. *(?:\n|$)"),
    ):
        found = re.search(pattern, text)
        if found:
            names = re.findall(r'"([^"]+)"', found.group(1))
            more = f" and {len(names) - limit} more" if len(names) > limit else ""
            parts.append(f"{title} {', '.join(names[:limit])}{more}")
    shape = r"torch\.Size\((\[[^\]]*\])\)"
    shapes = re.findall(rf"size mismatch for (\S+): .*?shape {shape}.*?current model is {shape}", text)
    if shapes:
        more = f" and {len(shapes) - limit} more" if len(shapes) > limit else ""
        parts.append("other shapes " + ", ".join(f"{n} {a} for {b}" for n, a, b in shapes[:limit]) + more)
    return "; ".join(parts) or " ".join(text.split())[:200]


def _create(
    name: str,
    num_classes: int,
    img_size: tuple[int, int] | None,
    model_args: dict[str, Any],
    *,
    weights_path: Path | None = None,
    **options: Any,
) -> nn.Module:
    kwargs = dict(model_args)
    if img_size is not None and takes_img_size(name):
        kwargs["img_size"] = img_size
    try:
        return timm.create_model(name, num_classes=num_classes, **kwargs, **options)
    except (OSError, httpx.HTTPError, HfHubHTTPError):
        raise
    except Exception as error:
        if weights_path is not None:
            raise UserError(
                f"{weights_path} does not fit encoder {name}: {_reason(error)}. Check the encoder's name and "
                "model_args."
            ) from error
        size = f" at {img_size[0]}x{img_size[1]} pixels" if img_size else ""
        given = f" with model_args {model_args}" if model_args else ""
        raise UserError(f"timm cannot build {name}{size}{given}: {_reason(error)}.") from error


def _published(name: str) -> PretrainedCfg:
    """timm's registered configuration; a model registered without one has timm's defaults."""
    return get_pretrained_cfg(name) or PretrainedCfg(architecture=name)


def _reason(error: Exception) -> str:
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        return describe_mismatch(error)
    if isinstance(error, KeyError):
        return f"tensor {error.args[0]} is missing"
    return (" ".join(str(error).split())[:200] or type(error).__name__).rstrip(".")


def _weights_path(path: Path) -> Path:
    if not path.is_dir():
        return path
    inside = path / "model.safetensors"
    if not inside.is_file():
        raise UserError(f"No model.safetensors in {path}: give a weights file or a checkpoint directory.")
    return inside


def _source_args(path: Path, name: str) -> dict[str, Any]:
    """The size the file was made for, from timm's config.json beside it: non-square tables need it."""
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        size = config["model_args"]["img_size"]
        if config["architecture"] == name.partition(".")[0]:
            return {"img_size": size}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def _classifier_size(tensors: dict[str, torch.Tensor], published: str | tuple[str, ...] | None) -> int:
    names = (published,) if isinstance(published, str) else tuple(published or ())
    for name in (*names, "head", "fc", "head.fc", "classifier"):
        weight = tensors.get(f"{name}.weight")
        if weight is not None and weight.ndim in (2, 4):
            return weight.shape[0]
    return 0


def _require_reachable(name: str) -> None:
    """Find out in one request whether the Hub answers, since timm's download retries for most of a minute."""
    cfg = _published(name)
    if not cfg.hf_hub_id:
        return
    files = [cfg.hf_hub_filename] if cfg.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    if any(isinstance(try_to_load_from_cache(cfg.hf_hub_id, file), str) for file in files):
        return
    try:
        get_hf_file_metadata(hf_hub_url(cfg.hf_hub_id, files[0]), timeout=10)
    except HfHubHTTPError:
        return
    except (OSError, httpx.HTTPError) as error:
        raise _unreachable(name) from error


def _unreachable(name: str) -> UserError:
    return UserError(f"The pretrained weights of {name} cannot be fetched from the Hub (no network?): {REMEDY}.")
