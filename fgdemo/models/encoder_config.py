"""An encoder as the root keys of config.json, in timm's schema, and back."""

from __future__ import annotations

from typing import Any

from timm.models import is_model

from fgdemo.errors import UserError
from fgdemo.models.encoder import Encoder

# What a trained model's configuration does not inherit: where its first weights were, what they classified,
# and test sizes recommended for them.
_SOURCE_KEYS = (
    {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load", "architecture"}
    | {"num_classes", "label_offset", "label_names", "label_descriptions"}
    | {"test_input_size", "test_crop_pct", "test_pool_size", "min_input_size", "pool_size"}
)
_PROVENANCE_KEYS = {"tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes"}


def describe_encoder(encoder: Encoder, num_classes: int) -> dict[str, Any]:
    """Root keys of config.json, `architecture` among them, for a classifier of so many classes on top."""
    net = encoder.net
    published = net.pretrained_cfg
    dropped = _SOURCE_KEYS if encoder.is_pretrained else _SOURCE_KEYS | _PROVENANCE_KEYS
    model_args = dict(encoder.model_args)
    if encoder.takes_img_size:
        model_args["img_size"] = list(encoder.input_size)
    pool = getattr(net, "global_pool", None)
    config = {
        "architecture": published.get("architecture") or encoder.name.partition(".")[0],
        "num_classes": num_classes,
        "num_features": net.num_features,
        "global_pool": pool if isinstance(pool, str) else None,
        "model_args": model_args,
        "pretrained_cfg": {
            **{k: _jsonable(v) for k, v in published.items() if k not in dropped},
            **{k: _jsonable(v) for k, v in encoder.data_config.items()},
            "num_classes": num_classes,
            "pool_size": None,
            "custom_load": False,
        },
    }
    return {k: v for k, v in config.items() if v is not None}


def encoder_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `Encoder` (its name as `architecture`) that rebuild it from those keys, with random weights.

    Raises:
        UserError: the installed timm lacks the model.
    """
    architecture = config["architecture"]
    if not is_model(architecture):
        raise UserError(
            f"The checkpoint needs timm's model {architecture!r}, which the installed timm does not have: upgrade timm."
        )
    model_args = dict(config.get("model_args") or {})
    cfg = config["pretrained_cfg"]
    size = model_args.pop("img_size", None) or cfg["input_size"][1:]
    return {
        "architecture": architecture,
        "img_size": tuple(size) if not isinstance(size, int) else size,
        "model_args": model_args,
        "data_config": cfg,
    }


def _jsonable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
