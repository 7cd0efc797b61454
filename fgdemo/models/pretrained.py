"""timm modules with random, published or local weights."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import HfHubHTTPError, httpx
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model, is_model_pretrained
from torch import nn

from fgdemo.errors import UserError
from fgdemo.models.published_keys import load_published, published_weights
from fgdemo.models.weights_file import classifier_size, describe_mismatch, read_weights, source_args, weights_path

logger = logging.getLogger(__name__)

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

    Google's vision transformers (.npz) and Meta's DINOv2 are read as published (`fgdemo.models.published_keys`). On
    every other file timm's own checkpoint filter of the architecture runs, so published formats of other projects
    that timm knows are converted. Position tables are resampled from the grid of the file to the grid in use.
    Everything but a classifier of another size must match exactly.

    Raises:
        UserError: unreadable file, or tensors missing, unexpected or of another shape.
    """
    path = weights_path(Path(path))
    tensors = read_weights(path)
    registered = _published(name).to_dict()
    with _misfits_named(path, name):
        published = published_weights(tensors)
    if published:
        classes_in_file = classifier_size(published.tensors, registered.get("classifier"))
        net = _create(name, classes_in_file, img_size, model_args)
        with _misfits_named(path, name):
            load_published(net, published)
        for dropped, reason in published.dropped.items():
            logger.info("%s: %s dropped: %s", path, dropped, reason)
    else:
        classes_in_file = classifier_size(tensors, registered.get("classifier"))
        overlay = {
            "state_dict": tensors,
            "custom_load": False,
            "num_classes": classes_in_file,
            "label_offset": None,
        }
        made_for = source_args(path, name)
        extra = {"pretrained_model_args": made_for} if made_for else {}
        net = _create(
            name,
            classes_in_file,
            img_size,
            model_args,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            source=path,
            **extra,
        )
    net.pretrained_cfg = net.default_cfg = registered
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


def _create(
    name: str,
    num_classes: int,
    img_size: tuple[int, int] | None,
    model_args: dict[str, Any],
    *,
    source: Path | None = None,
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
        if source is not None:
            raise _misfit(source, name, error) from error
        size = f" at {img_size[0]}x{img_size[1]} pixels" if img_size else ""
        given = f" with model_args {model_args}" if model_args else ""
        raise UserError(f"timm cannot build {name}{size}{given}: {_reason(error)}.") from error


def _published(name: str) -> PretrainedCfg:
    """timm's registered configuration; a model registered without one has timm's defaults."""
    return get_pretrained_cfg(name) or PretrainedCfg(architecture=name)


@contextmanager
def _misfits_named(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError, RuntimeError) as error:
        raise _misfit(path, name, error) from error


def _misfit(path: Path, name: str, error: Exception) -> UserError:
    return UserError(f"{path} does not fit encoder {name}: {_reason(error)}. Check the encoder's name and model_args.")


def _reason(error: Exception) -> str:
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        return describe_mismatch(error)
    if isinstance(error, KeyError):
        return f"tensor {error.args[0]} is missing"
    return (" ".join(str(error).split())[:200] or type(error).__name__).rstrip(".")


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
