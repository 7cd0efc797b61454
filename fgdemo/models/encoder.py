"""Any timm model as an encoder: pooled features, patch tokens, feature maps, class-token attention rows."""

from __future__ import annotations

import inspect
import math
from typing import Any, NamedTuple

import timm.data
import torch
from torch import Tensor, nn

from fgdemo.errors import UserError
from fgdemo.models.class_rows import ClassRows, record_class_rows, supports_class_rows
from fgdemo.models.pretrained import (
    check_model_args,
    check_name,
    create,
    create_from_file,
    create_pretrained,
    takes_img_size,
)


class Tokens(NamedTuple):
    """features (B, D) pooled; patches (B, N, D) after the final norm, without prefix tokens; grid (h, w)."""

    features: Tensor
    patches: Tensor
    grid: tuple[int, int]


class Encoder(nn.Module):
    """A timm model by name.

    Weights are random, timm's published ones (`pretrained`), or those of a local file (`weights`, which goes
    before `pretrained`): .safetensors, a .pth that loads as weights only, or a checkpoint directory, with timm's
    names, Meta's for DINOv2, or those of another project that timm converts; or Google's vision transformers as
    .npz. Every tensor but a classifier of another size must fit.

    `img_size` is one side or (height, width) in pixels. Models of a fixed input size are built for it, with
    position tables resampled by timm; for the others it only changes `data_config`.

    `data_config` is timm's data configuration with the size in use; a given one overrides timm's values. An
    encoder with random weights has no crop that it was validated with, so it sees the whole central crop
    (`crop_pct` 1); others keep timm's.

    Attributes: `net` the timm module, `name`, `model_args`, `dim` D of the features, `num_classes` of timm's
    own classifier (0 for none), `data_config`, `is_pretrained`, `classifier_is_new`, `takes_img_size`.

    Raises:
        UserError: unknown name, weights that cannot be had or do not fit, a size the model cannot take.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = False,
        weights: str | None = None,
        img_size: int | tuple[int, int] | None = None,
        num_classes: int = 0,
        model_args: dict[str, Any] | None = None,
        data_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.model_args = dict(model_args or {})
        check_name(name)
        check_model_args(self.model_args)
        size = _pair(img_size) if img_size is not None else None
        build = {"num_classes": num_classes, "img_size": size, "model_args": self.model_args}
        self.is_pretrained = pretrained or weights is not None
        if weights is not None:
            self.net, classifier_loaded = create_from_file(name, weights, **build)
        elif pretrained:
            self.net = create_pretrained(name, **build)
            classifier_loaded = num_classes == self.net.pretrained_cfg["num_classes"]
        else:
            self.net, classifier_loaded = create(name, **build), False
        self.classifier_is_new = num_classes > 0 and not classifier_loaded
        self.num_classes = num_classes
        self.takes_img_size: bool = takes_img_size(name)
        self.dim: int = getattr(self.net, "head_hidden_size", None) or self.net.num_features
        self.data_config = self._data_config(size, data_config)
        self._check_head()
        self._check_size()

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features before the classifier, (B, 3, H, W) -> (B, D)."""
        return self.net.forward_head(self.net.forward_features(images), pre_logits=True)

    def forward_tokens(self, images: Tensor) -> Tokens:
        """Pooled features and patch tokens of one pass; only where `has_tokens`.

        Raises:
            ValueError: the model has no patch tokens.
        """
        if not self.has_tokens:
            raise ValueError(f"{self.name} has no patch tokens")
        sequence = self.net.forward_features(images)
        grid = self.grid_of(images.shape[-2:])
        patches = sequence[:, self.num_prefix_tokens :]
        if patches.shape[1] != grid[0] * grid[1]:
            raise ValueError(f"{self.name} gave {patches.shape[1]} patch tokens for a grid of {grid}")
        return Tokens(self.net.forward_head(sequence, pre_logits=True), patches, grid)

    def class_rows(self, images: Tensor) -> ClassRows:
        """Attention logits of the class token over the patches; only where `has_class_rows`.

        Raises:
            ValueError: the model has no class token, or an attention this project has no adapter for.
        """
        if not self.has_class_rows:
            raise ValueError(f"{self.name} has no class-token attention rows")
        with record_class_rows(self.net) as rows:
            self.net.forward_features(images)
        return ClassRows(torch.stack(rows, dim=1), self.grid_of(images.shape[-2:]))

    def feature_map(self, images: Tensor) -> Tensor:
        """The last map before pooling, (B, 3, H, W) -> (B, D', h, w); patch tokens lie on their grid."""
        return self.to_map(self.net.forward_features(images), images.shape[-2:])

    def to_map(self, features: Tensor, image_size: tuple[int, int]) -> Tensor:
        """timm's `forward_features` output as a map (B, D', h, w), whatever the architecture's layout.

        Raises:
            UserError: the architecture has several outputs, or tokens whose grid is unknown.
        """
        if not isinstance(features, Tensor):
            raise UserError(f"{self.name} has several outputs and no single feature map to explain.")
        if features.ndim == 4:
            channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
            return features.permute(0, 3, 1, 2) if channels_last else features
        patches = features[:, self.num_prefix_tokens :]
        h, w = self.grid_of(image_size) if self.has_tokens else _guess_grid(patches.shape[1], image_size)
        if h * w != patches.shape[1]:
            raise UserError(f"{self.name} gives {patches.shape[1]} tokens that lie on no known grid.")
        return patches.transpose(1, 2).unflatten(2, (h, w))

    def grid_of(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches for images of (height, width); only where `has_tokens`."""
        embed = self.net.patch_embed
        if getattr(self.net, "dynamic_img_size", False):
            h, w = embed.dynamic_feat_size(tuple(image_size))
        else:
            h, w = embed.grid_size
        return int(h), int(w)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in use, in pixels."""
        return tuple(self.data_config["input_size"][1:])

    @property
    def has_tokens(self) -> bool:
        """Whether `forward_features` is a sequence of prefix tokens and patches on a known grid."""
        embed = getattr(self.net, "patch_embed", None)
        return (
            hasattr(self.net, "num_prefix_tokens")
            and hasattr(self.net, "blocks")
            and hasattr(embed, "dynamic_feat_size")
            and getattr(embed, "grid_size", None) is not None
        )

    @property
    def has_class_rows(self) -> bool:
        """Whether `class_rows` works: a class token first, and a known attention in every block."""
        return self.has_tokens and supports_class_rows(self.net)

    @property
    def num_prefix_tokens(self) -> int:
        """Class, register and distillation tokens before the patches; 0 where there are none."""
        return int(getattr(self.net, "num_prefix_tokens", 0))

    @property
    def num_blocks(self) -> int:
        """Transformer blocks that `class_rows` covers; 0 for models without patch tokens."""
        return len(self.net.blocks) if self.has_tokens else 0

    @property
    def num_heads(self) -> int:
        """Attention heads of each block; 0 for models without patch tokens."""
        attention = getattr(self.net.blocks[0], "attn", None) if self.has_tokens else None
        return int(getattr(attention, "num_heads", 0))

    def _data_config(self, size: tuple[int, int] | None, given: dict[str, Any] | None) -> dict[str, Any]:
        config = timm.data.resolve_model_data_config(self.net)
        if not self.is_pretrained:
            config["crop_pct"] = 1.0
        config.update({key: value for key, value in (given or {}).items() if key in config})
        if size is not None:
            config["input_size"] = (3, *size)
        return {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}

    def _check_head(self) -> None:
        forward_head = getattr(self.net, "forward_head", None)
        poolable = forward_head is not None and "pre_logits" in inspect.signature(forward_head).parameters
        if not poolable or not hasattr(self.net, "get_classifier"):
            raise UserError(f"{self.name} has no pooled features to classify by: choose another encoder.")

    def _check_size(self) -> None:
        ratio = getattr(getattr(self.net, "patch_embed", None), "feat_ratio", None)
        if not callable(ratio) or getattr(self.net.patch_embed, "dynamic_img_pad", False):
            return
        step = ratio(as_scalar=False)
        height, width = self.input_size
        if height % step[0] or width % step[1]:
            patch = f"{step[0]}" if step[0] == step[1] else f"{step[0]}x{step[1]}"
            raise UserError(
                f"{self.name} cuts images into patches of {patch} pixels: the image size {height}x{width} must be "
                f"a multiple of it, for example {_nearest(height, step[0])}x{_nearest(width, step[1])}."
            )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(s, int) and s > 0 for s in pair):
        raise UserError(f"The image size must be one side or height and width in pixels, not {size!r}.")
    return pair


def _nearest(length: int, step: int) -> int:
    return max(1, round(length / step)) * step


def _guess_grid(tokens: int, image_size: tuple[int, int]) -> tuple[int, int]:
    h = max(1, round(math.sqrt(tokens * image_size[0] / image_size[1])))
    return h, tokens // h
