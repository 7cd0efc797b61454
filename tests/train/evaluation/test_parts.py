"""Selected patches on known parts: pictures, traces and shares worked by hand, the geometry, every option."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from scipy.stats import ttest_1samp, ttest_rel
from support.subjects import digits_subject
from torch import Tensor

from fgdemo.data import Catalogue, Hierarchy, Preprocessing, eval_transform
from fgdemo.data.scenes import plan
from fgdemo.errors import UserError
from fgdemo.explain.voting_maps import voting_maps
from fgdemo.models import Network, build_network
from fgdemo.models.field import field_shift
from fgdemo.models.voting import VotingNetwork, VotingTrace
from train.__main__ import main
from train.evaluation import Subject
from train.evaluation.located import in_box, in_mask, mask_reader, patch_centres
from train.evaluation.outcomes import unpack
from train.evaluation.parts import PartsOptions, lines, measure
from train.evaluation.selections import draw, select

SIZES = ((128, 64), (64, 64), (64, 128))
BOXES = ((48, 0, 80, 32), (0, 0, 24, 24), (0, 0, 64, 32))
"""At 64 pixels in the central crop and a grid of 4 x 4: patches 1, 2, 5 and 6; patch 0; above the crop, so none."""


class Reader:
    """Grey pictures of three sizes; the object is the left half of every one."""

    def __call__(self, index: int) -> Image.Image:
        return Image.new("RGB", SIZES[index], (40 * index,) * 3)

    def mask(self, index: int) -> np.ndarray:
        width, height = SIZES[index]
        return np.tile(np.arange(width) < width // 2, (height, 1))


def three_pictures(network: Network, **truth: object) -> Subject:
    catalogue = Catalogue(
        name="three",
        root=None,
        keys=np.array(["a", "b", "c"]),
        fine=np.array([0, 1, 0]),
        coarse=np.array([0, 1, 0]),
        split=np.array(["test"] * 3),
        hierarchy=Hierarchy.flat(["x", "y"]),
        default_labels="fine",
        reader=Reader(),
        truth=truth or {"part_box": np.array(BOXES, np.float32)},
    )
    return digits_subject(network, size=64, catalogue=catalogue, batch_size=2)


POSITION = torch.tensor([[1, 5, 5, 9], [0, 3, 0, 7], [1, 2, 3, 4]])
"""Candidates of the three pictures; two merged tokens follow as 4 and 5 of the pool."""
REFINED = torch.tensor([[0, 1, 2], [0, 3, 4], [4, 5, 4]])


def one_hot_blocks(*peaks: tuple[int, int]) -> Tensor:
    """(L, 16) of zeros but one place and height for each block."""
    return torch.stack([torch.eye(16)[place] * height for place, height in peaks])


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A voting network that says of each picture what stands in the tables."""
    network = VotingNetwork("test_vit", num_classes=2, img_size=64, settings={"candidates": 8, "refined": 3}).eval()
    scores = torch.stack(
        [one_hot_blocks((6, 5), (10, 4)), one_hot_blocks((0, 5), (1, 4)), one_hot_blocks((1, 5), (2, 4))]
    )
    logits = torch.stack(
        [one_hot_blocks((12, 3), (13, 2)), one_hot_blocks((0, 3), (15, 2)), one_hot_blocks((1, 3), (2, 2))]
    )

    def trace(images: Tensor) -> tuple[None, VotingTrace]:
        # The grey of a picture is 40 times its number.
        rows = ((images.mean((1, 2, 3)) * 0.5 + 0.5) * 255 / 40).round().long()
        nothing = torch.zeros(0)
        return None, VotingTrace(
            rows=logits[rows, :, None].expand(-1, -1, 2, -1),
            votes=nothing,
            scores=scores[rows],
            scale_scores=nothing,
            block=nothing,
            rank=nothing,
            position=POSITION[rows],
            score=nothing,
            final_votes=torch.zeros(len(images), 6),
            refined=REFINED[rows],
            quotas=nothing,
        )

    monkeypatch.setattr(network, "trace", trace)
    return three_pictures(network)


PART = {
    "picks": (1, 1 / 3, 0),
    "patches": (1, 1 / 2, 0),
    "candidates": (3 / 4, 2 / 4, 0),
    "votes": (1 / 2, 1 / 2, 0),
    "attention": (0, 1 / 2, 0),
    "ceiling": (1, 1 / 2, 0),
    "chance": (4 / 16, 1 / 16, 0),
}
"""Two patches are selected in the first two pictures and none in the last, whose picks are merged tokens."""


def test_by_hand(by_hand: Subject) -> None:
    result = json.loads(json.dumps(measure(by_hand, PartsOptions(True))))
    assert (result["n"], result["grid"], result["tokens"]) == (3, [4, 4], 3)
    assert (result["selected"], result["merged"], result["out_of_reach"]) == pytest.approx((4 / 3, 4 / 9, 1 / 3))
    for name, shares in PART.items():
        interval = ttest_1samp(shares, 0).confidence_interval(0.95)
        found = result[name]
        assert found["part"] == pytest.approx(np.mean(shares)), name
        assert (found["part_low"], found["part_high"]) == pytest.approx((interval.low, interval.high)), name
        assert found["part_lift"] == pytest.approx(np.mean(shares) / (5 / 48)), name
    gap = result["differences"]["patches - attention"]["part"]
    interval = ttest_rel(PART["patches"], PART["attention"]).confidence_interval(0.95)
    assert (gap["mean"], gap["low"], gap["high"]) == pytest.approx((1 / 3, interval.low, interval.high))
    assert list(result["differences"]) == [f"patches - {name}" for name in ("votes", "attention", "random", "chance")]
    for name in ("picks", "patches", "votes", "attention"):
        np.testing.assert_allclose(unpack(result["outcomes"][f"parts/{name}/part"]), PART[name], atol=1e-5)
    assert set(result["outcomes"]) == {f"parts/{name}/part" for name in ("picks", "patches", "votes", "attention")}


def test_the_object_by_hand(by_hand: Subject) -> None:
    """The left half: two of four columns of patches, of the first picture's crop as of the others."""
    result = measure(by_hand, PartsOptions(True))
    assert result["chance"]["object"] == 1 / 2
    # 1, 5, 5; 0 and not 7; nothing. Patches 6 and 10, then 0 and 1. Patches 12 and 13, then 0 and 15.
    for name, shares in {"picks": (1, 1 / 3, 0), "votes": (0, 1, 0), "attention": (1, 1 / 2, 0)}.items():
        assert result[name]["object"] == pytest.approx(np.mean(shares)), name
    bare = measure(by_hand, PartsOptions(True, parts_object=False))
    assert "object" not in bare["picks"]
    assert "object" not in bare["differences"]["patches - chance"]
    assert ("on the object" in "\n".join(lines(result)), "on the object" in "\n".join(lines(bare))) == (True, False)


def test_the_table_says_what_was_found(by_hand: Subject) -> None:
    result = measure(by_hand, PartsOptions(True))
    text = "\n".join(lines(result))
    for part in (
        "1.3 of 16 patches (4 x 4) selected in 3 pictures",
        "33.3 % of the pictures have no patch there",
        "44.4 % of the final picks are merged tokens",
        f"final picks, every token counted   44.44 % ({100 * result['picks']['part_low']:.2f} to ",
        "4.3 times chance",
        "patches - attention: +33.33 points",
    ):
        assert part in text


@pytest.fixture(scope="module")
def voting() -> VotingNetwork:
    torch.manual_seed(0)
    settings = {"votes": 2, "candidates": 10, "refined": 8, "final_votes": 3, "merger": True}
    return VotingNetwork("test_vit", num_classes=2, img_size=64, settings=settings).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_picks_are_those_of_the_pass_that_classifies(voting: VotingNetwork, images: Tensor) -> None:
    with torch.no_grad():
        output, trace = voting.trace(images)
    found = select(voting, images)
    assert (found.picks.shape, found.candidates.shape) == ((5, 8), (5, 10))
    for picture in range(5):
        for pointer, place, block in zip(
            trace.refined[picture], found.picks[picture], output.picked[picture], strict=True
        ):
            if pointer < 10:
                assert place == trace.position[picture, pointer]
                assert block == trace.block[pointer]
            else:
                assert place == 16
        total = trace.scores[picture].sum(0)
        assert found.votes[picture].tolist() == sorted(range(16), key=lambda i: (-total[i], i))
    assert (found.picks == 16).any(), "no merged token was picked, so their case is not tested"


def test_a_network_that_selects_nothing_is_asked_as_in_the_app(images: Tensor) -> None:
    torch.manual_seed(0)
    network = build_network("timm", architecture="test_vit", num_classes=2, img_size=64).eval()
    bare = VotingNetwork("test_vit", num_classes=2, img_size=64, settings={"selection": "class-token"}).eval()
    for chosen in (network, bare):
        found = select(chosen, images)
        assert found.picks.shape == found.candidates.shape == (5, 0)
        for picture, image in enumerate(images):
            shown = voting_maps(chosen.encoder, image)
            for order, values in (
                (found.votes[picture], shown.scores.sum(0).ravel()),
                (found.attention[picture], shown.attention.mean((0, 1)).ravel()),
            ):
                assert (np.diff(values[order]) <= 1e-6).all()
    result = measure(three_pictures(network), PartsOptions(True))
    assert [name for name in PART if name in result] == ["votes", "attention", "ceiling", "chance"]
    assert list(result["differences"]) == ["votes - attention", "votes - random", "votes - chance"]
    assert set(result["outcomes"]) == {"parts/votes/part", "parts/attention/part"}
    # As many as a voting network over six blocks of 16 patches would keep.
    assert result["selected"] == VotingNetwork("test_vit", num_classes=2, img_size=64).settings.refined


def test_controls_select_as_many_patches_as_the_picks_cover(voting: VotingNetwork) -> None:
    """With the whole picture as the part, every selection that is not empty has a share of one."""
    subject = three_pictures(voting, part_box=np.array([[0, 0, 128, 128]] * 3, np.float32))
    found = select(voting, torch.stack([sample.image for sample in subject.images("test")]))
    covered = [len(set(row) - {16}) for row in found.picks.tolist()]
    result = measure(subject, PartsOptions(True))
    assert result["selected"] == pytest.approx(np.mean(covered))
    for name in ("patches", "votes", "attention", "random", "ceiling"):
        assert result[name]["part"] == np.mean([n > 0 for n in covered])
    assert result["picks"]["part"] == pytest.approx((found.picks < 16).double().mean().item())


def test_random_choices_are_fair() -> None:
    counts = np.repeat([0, 1, 5, 9], 500)
    drawn = draw(counts, 9, seed=0)
    np.testing.assert_allclose(drawn.sum(1), counts)
    np.testing.assert_allclose(drawn.reshape(4, 500, 9).mean(1), np.tile([[0], [1 / 9], [5 / 9], [1]], 9), atol=0.02)
    np.testing.assert_array_equal(drawn, draw(counts, 9, seed=0))
    assert not np.array_equal(drawn, draw(counts, 9, seed=1))


def test_batches_change_nothing(voting: VotingNetwork) -> None:
    subject = three_pictures(voting)
    whole = measure(subject, PartsOptions(True))
    subject.batch_size = 1
    assert measure(subject, PartsOptions(True)) == whole


def test_unreadable_pictures_are_left_out(voting: VotingNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(three_pictures(voting), PartsOptions(True))

    def read(self: Reader, index: int) -> Image.Image:
        if index == 2:
            raise UserError("broken")
        return Image.new("RGB", SIZES[index], (40 * index,) * 3)

    monkeypatch.setattr(Reader, "__call__", read)
    result = measure(three_pictures(voting), PartsOptions(True))
    assert (whole["n"], result["n"]) == (3, 2)
    assert result["chance"]["part"] == pytest.approx((4 / 16 + 1 / 16) / 2)


@pytest.mark.parametrize("mode", ["center", "border", "squash"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.8])
@pytest.mark.parametrize("size", [(160, 96), (90, 200), (128, 128)])
def test_centres_are_where_the_transform_puts_them(mode: str, crop_pct: float, size: tuple[int, int]) -> None:
    """On a picture whose colour says where one is, each cell's middle shows the place that is claimed for it."""
    pre = Preprocessing((3, 96, 64), "bilinear", (0, 0, 0), (1, 1, 1), crop_pct, mode)
    width, height = size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    ramps = np.stack([x, y, np.full_like(x, 255)], axis=2).round().astype(np.uint8)
    shown = eval_transform(pre)(Image.fromarray(ramps)).double() * 255
    points = patch_centres(size, pre, (6, 4))
    middles = shown.unflatten(1, (6, 16)).unflatten(3, (4, 16))[:, :, 7:9, :, 7:9].mean((2, 4)).flatten(1).T.numpy()
    within = (points > 4).all(1) & (points < np.array(size) - 4).all(1) & (middles[:, 2] > 254)
    assert within.sum() >= 6
    np.testing.assert_allclose(middles[within, :2], points[within] + [0, 0], atol=1.0)


def test_a_shift_is_in_pixels_of_the_input() -> None:
    pre = Preprocessing((3, 32, 64), crop_pct=1.0, crop_mode="squash")
    points = patch_centres((128, 100), pre, (2, 4), (-3, 5)), patch_centres((128, 100), pre, (2, 4))
    np.testing.assert_allclose(points[1][[0, 7]], [[16, 25], [112, 75]])
    np.testing.assert_allclose(points[0] - points[1], np.tile([-3 * 128 / 64, 5 * 100 / 32], (8, 1)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("test_vit", (0, 0)), ("vit_conv_mini_patch16_128", (-7.5, -7.5)), ("vit_mini_r10_s8_96", (-3.5, -3.5))],
)
def test_the_field_of_a_patch(name: str, expected: tuple[float, float]) -> None:
    """What a patch's embedding reads, by its gradient: the field of one in the middle of the grid."""
    torch.manual_seed(0)
    net = timm.create_model(name, img_size=128).eval()
    image = torch.randn(1, 3, 128, 128, requires_grad=True)
    h, w = net.patch_embed.grid_size
    net.patch_embed(image).reshape(h * w, -1)[(h // 2) * w + w // 2].pow(2).sum().backward()
    rows, columns = (image.grad.abs().sum((0, 1, axis)) > 0 for axis in (3, 2))
    cell = 128 // h
    for reads, shift, at in ((columns, expected[0], w // 2), (rows, expected[1], h // 2)):
        first, last = reads.nonzero()[[0, -1], 0].tolist()
        assert (first + last + 1) / 2 == (at + 0.5) * cell + shift
    assert field_shift(net) == expected


def test_boxes_hold_their_first_edges_only() -> None:
    points = np.array([[2.0, 3.0], [5.0, 3.0], [2.0, 7.0], [4.9, 6.9], [1.9, 4.0]])
    assert in_box(points, np.array([2, 3, 5, 7], np.float32)).tolist() == [True, False, False, True, False]


def test_masks_end_with_the_picture() -> None:
    mask = np.array([[True, False, True], [False, True, True]])
    points = np.array([[0.5, 0.5], [1.9, 0.1], [2.5, 1.5], [3.0, 1.0], [-0.1, 0.5], [0.5, 2.0], [1.0, 1.0]])
    assert in_mask(points, mask).tolist() == [True, False, True, False, False, False, True]


def test_every_option_changes_the_figures() -> None:
    torch.manual_seed(0)
    encoder = {"channels": (8, 8, 16, 16), "num_heads": 2}
    network = build_network(
        "conv_vit", architecture="vit_conv_mini_patch16_128", num_classes=2, img_size=64, model_args=encoder
    ).eval()
    subject = three_pictures(network)
    plain = measure(subject, PartsOptions(True))
    assert measure(subject, PartsOptions(True)) == plain
    cell = measure(subject, PartsOptions(True, parts_centre="cell"))
    # The stem reads 7.5 pixels further up and left: the first box has other four patches, the second four for one.
    assert (cell["chance"]["part"], plain["chance"]["part"]) == pytest.approx((5 / 48, 8 / 48))
    assert "middle of the cell" in lines(cell)[1]
    assert "middle of what a patch reads" in lines(plain)[1]
    one = measure(subject, PartsOptions(True, parts_centre="cell", parts_patches=1))
    assert (cell["selected"], one["selected"]) == (4, 1)
    assert (cell["ceiling"]["part"], one["ceiling"]["part"]) == pytest.approx((5 / 12, 2 / 3))
    seeds = [measure(subject, PartsOptions(True, parts_seed=seed)) for seed in range(8)]
    assert seeds[0] == plain
    assert len({found["random"]["part"] for found in seeds}) > 1
    for found in seeds:
        assert all(found[name] == plain[name] for name in ("votes", "attention", "ceiling", "chance"))
    assert "object" not in measure(subject, PartsOptions(True, parts_object=False))["votes"]


def test_the_number_of_patches_is_that_of_the_controls(by_hand: Subject) -> None:
    result = measure(by_hand, PartsOptions(True, parts_patches=16))
    assert result["selected"] == 16
    for name in ("votes", "attention", "random", "ceiling"):
        assert result[name]["part"] == pytest.approx(5 / 48)
    assert result["patches"]["part"] == 1 / 2


def test_pictures_whose_object_is_not_known(voting: VotingNetwork) -> None:
    subject = three_pictures(voting)
    subject.catalogue.reader = lambda index: Image.new("RGB", SIZES[index])
    assert mask_reader(subject.catalogue) is None
    assert "object" not in measure(subject, PartsOptions(True))["picks"]


def test_one_picture_has_no_interval(voting: VotingNetwork) -> None:
    subject = three_pictures(voting)
    subject.catalogue.split[:2] = "train"
    result = measure(subject, PartsOptions(True))
    assert (result["picks"]["part_low"], result["picks"]["part_lift"]) == (None, None)
    assert "(0." not in "\n".join(lines(result)[3:])


def test_refusals(voting: VotingNetwork) -> None:
    with pytest.raises(UserError, match=r"^digits does not know where the telling parts are: --parts is for scenes\.$"):
        measure(digits_subject(voting, size=64), PartsOptions(True))
    resnet = build_network("timm", architecture="test_resnet", num_classes=2, img_size=64).eval()
    with pytest.raises(UserError, match="test_resnet has no class token whose attention selects patches"):
        measure(three_pictures(resnet), PartsOptions(True))
    with pytest.raises(UserError, match="--parts-patches 17 is more than the 16 patches of a picture"):
        measure(three_pictures(voting), PartsOptions(True, parts_patches=17))
    with pytest.raises(UserError, match="--parts-patches must be at least 1, or 0 for the network's own, not -1"):
        PartsOptions(True, parts_patches=-1)


def test_by_the_command_line(
    train: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "PER_CLASS", {"train": 5, "val": 1, "test": 2})
    root = tmp_path / "scenes"
    run = train(
        *("--data", "scenes", "--data-root", str(root), "--encoder", "test_vit", "--img-size", "64", "--epochs", "1"),
        *("--batch-size", "30"),
        export=True,
    )
    argv = ["evaluate", str(run), "--parts", "--data-root", str(root), "--device", "cpu", "--workers", "0"]
    assert main(argv) == 0
    assert "of 16 patches (4 x 4) selected in 24 pictures" in capsys.readouterr().out
    result = json.loads((run / "evaluation" / "test.json").read_text())
    assert (result["parts"]["n"], result["parts"]["centre"]) == (24, "field")
    assert "outcomes" not in result["parts"]
    kept = unpack(result["outcomes"]["parts/votes/part"])
    assert kept.mean() == pytest.approx(result["parts"]["votes"]["part"], abs=1e-5)
