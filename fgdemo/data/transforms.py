"""From picture to tensor, as timm's data configuration of an encoder says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import floor
from typing import Any

import torch
from PIL import Image

from fgdemo.errors import UserError

Transform = Callable[[Image.Image], torch.Tensor]

CROP_MODES = ("center", "squash", "border")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes an encoder's input; the fields and their meaning are timm's.

    ``input_size`` is (3, H, W) in pixels; ``mean`` and ``std`` are for values in 0..1.
    """

    input_size: tuple[int, int, int] = (3, 224, 224)
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop_pct: float = 0.875
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        size = tuple(int(v) for v in self.input_size)
        if len(size) != 3 or size[0] != 3 or min(size) < 1:
            raise UserError(f"input_size must be (3, height, width), not {self.input_size}.")
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(f"Unknown interpolation {self.interpolation!r}: choose one of {', '.join(INTERPOLATIONS)}.")
        if self.crop_mode not in CROP_MODES:
            raise UserError(f"Unknown crop_mode {self.crop_mode!r}: choose one of {', '.join(CROP_MODES)}.")
        if not 0 < self.crop_pct <= 4:
            raise UserError(f"crop_pct must be above 0 and at most 4, not {self.crop_pct}.")
        mean, std = tuple(map(float, self.mean)), tuple(map(float, self.std))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UserError("mean and std need three numbers each, those of std above 0.")
        for name, value in {"input_size": size, "mean": mean, "std": std}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "crop_pct", float(self.crop_pct))

    @classmethod
    def from_data_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """From `timm.data.resolve_data_config`; what that does not say is timm's default."""
        names = cls.__dataclass_fields__
        return cls(**{name: config[name] for name in names if config.get(name) is not None})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: lists for tuples."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`; an unknown or missing key is a UserError."""
        wrong = sorted(set(values) ^ set(cls.__dataclass_fields__))
        if wrong:
            raise UserError(f"Preprocessing has unknown or missing entries: {', '.join(wrong)}.")
        return cls(**values)


def squashed(pre: Preprocessing, side: int) -> Preprocessing:
    """Squash pictures, whatever their shape, until the shorter side is `side` pixels, and keep the centre.

    Raises:
        UserError: the side is shorter than that of the input.
    """
    shorter = min(pre.input_size[1:])
    if side < shorter:
        raise UserError(f"Pictures resized to {side} pixels cannot hold a crop of {shorter} (--resize, --img-size).")
    # A hair above the side, since the product of the share is rounded down.
    return replace(pre, crop_pct=shorter / (side + 1e-6), crop_mode="squash")


def eval_transform(pre: Preprocessing) -> Transform:
    """RGB picture -> (3, H, W) float32, without any random draw."""
    from timm.data import create_transform

    return create_transform(
        input_size=pre.input_size,
        is_training=False,
        interpolation=pre.interpolation,
        mean=pre.mean,
        std=pre.std,
        crop_pct=pre.crop_pct,
        crop_mode=pre.crop_mode,
    )


def train_transform(
    pre: Preprocessing,
    *,
    resize: int = 0,
    crop_scale: tuple[float, float] = (0.35, 1.0),
    crop_ratio: tuple[float, float] = (0.75, 1.333),
    hflip: float = 0.5,
    vflip: float = 0.0,
    color_jitter: float = 0.3,
    auto_augment: str | None = None,
    re_prob: float = 0.0,
) -> Transform:
    """RGB picture -> (3, H, W) float32 by random resized crop, flips and colour.

    Args:
        resize: squash pictures to this shorter side and crop at random, in place of the random resized crop; `pre` is
            then `squashed` to it. 0 for the latter.
        crop_scale: smallest and largest share of the picture's area in the crop.
        crop_ratio: smallest and largest width / height of the crop.
        hflip, vflip, re_prob: probabilities of mirroring, of turning upside down, of erasing a rectangle.
        color_jitter: strength for brightness, contrast and saturation; 0 for none.
        auto_augment: a timm policy such as "rand-m9-mstd0.5"; it takes the place of the colour jitter.

    Raises:
        UserError: a value outside its range, or a policy that timm does not know.
    """
    _check_range("crop_scale", crop_scale, 1.0)
    _check_range("crop_ratio", crop_ratio, None)
    for name, value in {"hflip": hflip, "vflip": vflip, "re_prob": re_prob}.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} is a probability between 0 and 1, not {value}.")
    if color_jitter < 0:
        raise UserError(f"color_jitter must be 0 or more, not {color_jitter}.")
    from timm.data import create_transform

    try:
        geometry, colour, tensor = create_transform(
            input_size=pre.input_size,
            is_training=True,
            separate=True,
            scale=tuple(crop_scale),
            ratio=tuple(crop_ratio),
            hflip=hflip,
            vflip=vflip,
            color_jitter=color_jitter or None,
            auto_augment=auto_augment or None,
            interpolation=pre.interpolation,
            mean=pre.mean,
            std=pre.std,
            re_prob=re_prob,
        )
    except (AssertionError, KeyError, ValueError) as error:
        if not auto_augment:
            raise
        raise UserError(
            f"timm does not know the augmentation policy {auto_augment!r}; rand-m9-mstd0.5 is one it knows."
        ) from error
    from torchvision import transforms as tv

    if resize:
        size = tuple(floor(side / pre.crop_pct) for side in pre.input_size[1:])
        mode = tv.InterpolationMode(pre.interpolation)
        # timm's flips stay; its random resized crop comes first.
        geometry = tv.Compose([tv.Resize(size, mode), tv.RandomCrop(pre.input_size[1:]), *geometry.transforms[1:]])
    return tv.Compose([geometry, colour, tensor])


def crop_box(size: tuple[int, int], pre: Preprocessing) -> tuple[float, float, float, float]:
    """The part of a picture that `eval_transform` shows to the encoder.

    Args:
        size: (width, height) of the EXIF-oriented picture in pixels.

    Returns:
        (x0, y0, x1, y1) in pixels of that picture, with 0 and the width or height at its outer edges. The box
        reaches beyond the picture where the transform pads (``border`` mode, or ``crop_pct`` above 1).
    """
    width, height = size
    target_h, target_w = pre.input_size[1:]
    scale_h, scale_w = floor(target_h / pre.crop_pct), floor(target_w / pre.crop_pct)
    if pre.crop_mode == "squash":
        new_w, new_h = scale_w, scale_h
    elif pre.crop_mode == "center" and scale_h == scale_w:
        long_edge = int(scale_h * max(size) / min(size))
        new_w, new_h = (scale_w, long_edge) if width <= height else (long_edge, scale_h)
    else:
        choose = max if pre.crop_mode == "border" else min
        ratio = choose(height / scale_h, width / scale_w)
        new_w, new_h = round(width / ratio), round(height / ratio)
    x0, y0 = _center_offset(new_w, target_w), _center_offset(new_h, target_h)
    to_x, to_y = width / new_w, height / new_h
    return x0 * to_x, y0 * to_y, (x0 + target_w) * to_x, (y0 + target_h) * to_y


def _center_offset(size: int, crop: int) -> int:
    """Where torchvision's and timm's centre crop begins; below 0 where they pad."""
    return -((crop - size) // 2) if crop > size else round((size - crop) / 2)


def _check_range(name: str, values: tuple[float, float], top: float | None) -> None:
    if len(values) != 2 or not 0 < values[0] <= values[1] or (top is not None and values[1] > top):
        limit = f" and at most {top:g}" if top is not None else ""
        raise UserError(f"{name} needs two ascending numbers above 0{limit}, not {list(values)}.")
