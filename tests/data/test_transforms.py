from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from fgdemo.data.rng import keyed_random
from fgdemo.data.transforms import Preprocessing, crop_box, eval_transform, squashed, train_transform
from fgdemo.errors import UserError

MODES = ["center", "squash", "border"]


def plain(height: int, width: int, **changes) -> Preprocessing:
    values = {"interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (1.0, 1.0, 1.0), "crop_pct": 1.0}
    return Preprocessing((3, height, width), **(values | changes))


def coordinates(width: int, height: int) -> Image.Image:
    """Red says where a pixel lies from left to right, green from top to bottom; blue is full."""
    x = np.round(np.arange(width) / max(width - 1, 1) * 255)
    y = np.round(np.arange(height) / max(height - 1, 1) * 255)
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = x[None, :], y[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.9])
@pytest.mark.parametrize("target", [(64, 64), (48, 80), (80, 48)])
@pytest.mark.parametrize("size", [(200, 150), (150, 203), (97, 97), (40, 31)])
def test_crop_box_is_what_the_eval_transform_keeps(mode, crop_pct, target, size):
    pre = plain(*target, crop_mode=mode, crop_pct=crop_pct)
    shown = eval_transform(pre)(coordinates(*size)).double() + 0.5
    x0, y0, x1, y1 = crop_box(size, pre)
    inside = shown[2] > 0.999
    for channel, low, high, extent, steps in ((0, x0, x1, size[0], target[1]), (1, y0, y1, size[1], target[0])):
        line = torch.arange(steps).double()
        source = low + (line + 0.5) / steps * (high - low) - 0.5
        grid = source.expand(*target) if channel == 0 else source[:, None].expand(*target)
        # Away from the picture's edges, where resampling would mix in the edge itself.
        margin = 1.5 * max((high - low) / steps, 1)
        interior = inside & (grid > margin) & (grid < extent - 1 - margin)
        assert interior.sum() > 0.3 * inside.sum()
        error = (shown[channel] * (extent - 1) - grid)[interior].abs().max()
        assert error < 0.6 * max((high - low) / steps, extent / 255)
    # What lies outside of the box's overlap with the picture is padding, and nothing else is.
    if mode == "border":
        covered = (min(x1, size[0]) - max(x0, 0)) * (min(y1, size[1]) - max(y0, 0))
        share = covered / ((x1 - x0) * (y1 - y0))
        assert inside.double().mean().item() == pytest.approx(share, abs=0.04)
    else:
        assert inside.all()


def test_crop_box_by_hand():
    assert crop_box((200, 100), plain(50, 50)) == (50, 0, 150, 100)
    assert crop_box((200, 100), plain(50, 50, crop_mode="squash")) == (0, 0, 200, 100)
    assert crop_box((200, 100), plain(50, 50, crop_mode="border")) == (0, -48, 200, 152)
    assert crop_box((200, 100), plain(50, 50, crop_pct=0.5)) == (75, 25, 125, 75)
    assert crop_box((100, 100), plain(50, 50, crop_pct=2.0)) == (-48, -48, 152, 152)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 140), (2000, 41)])
def test_extreme_shapes_pass(mode, size):
    pre = plain(32, 48, crop_mode=mode)
    picture = Image.new("RGB", size, "red")
    assert eval_transform(pre)(picture).shape == (3, 32, 48)
    with keyed_random(0):
        assert train_transform(pre)(picture).shape == (3, 32, 48)


def test_eval_equals_timm_and_draws_nothing():
    from timm.data import create_transform

    config = {
        "input_size": (3, 96, 96),
        "interpolation": "bicubic",
        "mean": (0.48, 0.45, 0.4),
        "std": (0.2, 0.21, 0.22),
        "crop_pct": 0.9,
        "crop_mode": "center",
    }
    picture = coordinates(130, 170)
    before = torch.get_rng_state()
    image = eval_transform(Preprocessing.from_data_config(config))(picture)
    assert image.dtype == torch.float32
    assert torch.equal(image, create_transform(**config)(picture))
    assert torch.equal(torch.get_rng_state(), before)


def drawn(pre: Preprocessing, seed: int = 0, **options) -> torch.Tensor:
    with keyed_random(seed):
        return train_transform(pre, **options)(coordinates(80, 60))


OFF = {"crop_scale": (1.0, 1.0), "crop_ratio": (4 / 3, 4 / 3), "hflip": 0.0, "color_jitter": 0.0}


def test_training_without_any_augmentation_is_a_resize():
    pre = plain(60, 80)
    expected = eval_transform(plain(60, 80, crop_mode="squash"))(coordinates(80, 60))
    assert torch.equal(drawn(pre, **OFF), expected)


@pytest.mark.parametrize(
    "option",
    [
        {"crop_scale": (0.2, 0.3)},
        {"crop_ratio": (0.5, 0.6)},
        {"hflip": 1.0},
        {"vflip": 1.0},
        {"color_jitter": 0.5},
        {"auto_augment": "rand-m9-n3"},
        {"re_prob": 1.0},
    ],
)
def test_every_augmentation_changes_the_picture_and_follows_its_seed(option):
    pre = plain(60, 80)
    assert not torch.equal(drawn(pre, **(OFF | option)), drawn(pre, **OFF))
    assert torch.equal(drawn(pre, 7, **(OFF | option)), drawn(pre, 7, **(OFF | option)))


def test_flips_are_exact():
    pre = plain(60, 80)
    still = drawn(pre, **OFF)
    assert torch.equal(drawn(pre, **(OFF | {"hflip": 1.0})), still.flip(2))
    assert torch.equal(drawn(pre, **(OFF | {"vflip": 1.0})), still.flip(1))


def test_crop_scale_is_a_share_of_the_area():
    pre = plain(64, 64)
    for seed in range(20):
        image = drawn(pre, seed, **(OFF | {"crop_scale": (0.25, 0.25), "crop_ratio": (1.0, 1.0)})) + 0.5
        span_x = (image[0].max() - image[0].min()).item() * 80
        span_y = (image[1].max() - image[1].min()).item() * 60
        assert span_x * span_y == pytest.approx(0.25 * 80 * 60, rel=0.1)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_scale": (0.5, 1.1)}, "crop_scale"),
        ({"crop_ratio": (0.0, 1.0)}, "crop_ratio"),
        ({"hflip": 1.5}, "hflip"),
        ({"vflip": -0.5}, "vflip"),
        ({"re_prob": float("nan")}, "re_prob"),
        ({"color_jitter": -1.0}, "color_jitter"),
        ({"auto_augment": "nonsense"}, "nonsense"),
    ],
)
def test_impossible_augmentation_is_named(option, name):
    with pytest.raises(UserError, match=name):
        train_transform(plain(32, 32), **option)


def test_preprocessing_survives_json_and_pickle():
    pre = plain(32, 48, crop_mode="border", crop_pct=0.9)
    values = pre.to_dict()
    assert values["input_size"] == [3, 32, 48]
    assert Preprocessing.from_dict(values) == pre
    assert pickle.loads(pickle.dumps(pre)) == pre
    with pytest.raises(UserError, match="crop_pct"):
        Preprocessing.from_dict({k: v for k, v in values.items() if k != "crop_pct"})
    with pytest.raises(UserError, match="colour"):
        Preprocessing.from_dict(values | {"colour": 1})


def test_data_config_may_say_more_or_less():
    pre = Preprocessing.from_data_config({"input_size": (3, 10, 20), "crop_mode": None, "first_conv": "stem"})
    assert pre == Preprocessing(input_size=(3, 10, 20))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"input_size": (1, 32, 32)}, "input_size"),
        ({"input_size": (3, 0, 32)}, "input_size"),
        ({"interpolation": "cubic"}, "bicubic"),
        ({"crop_mode": "middle"}, "center"),
        ({"crop_pct": 0.0}, "crop_pct"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"mean": (1.0,)}, "mean"),
    ],
)
def test_impossible_preprocessing_is_named(changes, name):
    with pytest.raises(UserError, match=name):
        Preprocessing(**changes)


@pytest.mark.parametrize("target", [(48, 48), (48, 96)])
def test_squash_and_random_crop(target):
    """600 for 448 in small: training crops lie anywhere in the squashed picture, evaluation's in its middle."""
    pre = squashed(plain(*target), 64)
    assert pre.crop_mode == "squash"
    picture = coordinates(200, 150)
    across = 64 * target[1] // target[0]
    corners = set()
    for seed in range(40):
        with keyed_random(seed):
            image = train_transform(pre, resize=64, hflip=0.0, color_jitter=0.0)(picture) + 0.5
        step = image[0, 0].diff().mean() * (across - 1)
        assert step == pytest.approx(1, abs=0.06), "a crop at full size: red goes from 0 to 1 over the whole width"
        corners.add((round(float(image[0, 0, 0]) * across), round(float(image[1, 0, 0]) * 64)))
    assert len({x for x, _ in corners}) > 5
    assert len({y for _, y in corners}) > 5
    assert max(x for x, _ in corners) <= across - target[1] + 1
    x0, y0, x1, y1 = crop_box((200, 150), pre)
    assert (x0, y0) == pytest.approx((200 / 8, 150 / 8))
    assert (x1, y1) == pytest.approx((200 * 7 / 8, 150 * 7 / 8))
    assert eval_transform(pre)(picture).shape == (3, *target)


def test_a_crop_larger_than_the_squashed_picture_is_refused():
    with pytest.raises(UserError, match="--resize"):
        squashed(plain(48, 64), 40)
