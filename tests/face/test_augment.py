"""Augmentation of face crops: what each amount does, alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from affect.face.augment import GREY, augment
from affect.settings.encoder import CropAugment
from tests.pictures import NO_AUGMENT

STRONG = CropAugment(turn_deg=30.0, scale=0.5, shift=0.5, brightness=0.9, contrast=0.9, saturation=0.9, erase=1.0)


def noise(num: int, side: int, seed: int = 0) -> Tensor:
    """Crops in which no two pixels are likely alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, side, side, 3), dtype=torch.uint8, generator=generator)


def plain(num: int, side: int, color: tuple[int, int, int]) -> Tensor:
    """Crops of one colour."""
    return torch.tensor(color, dtype=torch.uint8).expand(num, side, side, 3).clone()


def changed(crops: Tensor, settings: CropAugment, seed: int = 0) -> Tensor:
    """Crops, augmented with a generator of this seed."""
    return augment(crops, settings, torch.Generator().manual_seed(seed))


def difference(one: Tensor, other: Tensor) -> int:
    """Largest difference of two pictures' bytes."""
    return int((one.int() - other.int()).abs().max())


def flat(crops: Tensor) -> Tensor:
    """The one colour of each crop, (B, 3)."""
    color = crops[:, 0, 0]
    assert (crops == color[:, None, None]).all()
    return color.double()


amounts = st.builds(
    CropAugment,
    mirror=st.floats(0, 1),
    turn_deg=st.floats(0, 180),
    scale=st.floats(0, 0.9),
    shift=st.floats(0, 0.9),
    brightness=st.floats(0, 0.99),
    contrast=st.floats(0, 0.99),
    saturation=st.floats(0, 0.99),
    grey=st.floats(0, 1),
    erase=st.floats(0, 1),
)


@settings(deadline=None)
@given(side=st.integers(1, 40), num=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_amounts_of_nothing_change_nothing(side: int, num: int, seed: int):
    crops = noise(num, side, seed)
    assert difference(changed(crops, NO_AUGMENT, seed), crops) <= 1


@settings(deadline=None, max_examples=50)
@given(amount=amounts, side=st.integers(1, 32), num=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_crops_stay_crops_the_input_stays_and_a_seed_gives_one_result(
    amount: CropAugment, side: int, num: int, seed: int
):
    crops = noise(num, side, seed)
    before = crops.clone()
    one, two = (changed(crops, amount, seed) for _ in range(2))
    assert one.dtype == torch.uint8 and one.shape == crops.shape
    assert torch.equal(one, two) and torch.equal(crops, before)


@settings(deadline=None)
@given(side=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_a_sure_mirror_mirrors_every_crop(side: int, seed: int):
    crops = noise(3, side, seed)
    assert difference(changed(crops, replace(NO_AUGMENT, mirror=1.0), seed), crops.flip(2)) <= 1


def test_half_of_the_crops_are_mirrored_and_the_others_stay():
    crops = noise(400, 4)
    out = changed(crops, replace(NO_AUGMENT, mirror=0.5)).int()
    same, flipped = ((out - other.int()).abs().amax(dim=(1, 2, 3)) <= 1 for other in (crops, crops.flip(2)))
    assert (same ^ flipped).all() and 150 < int(flipped.sum()) < 250


def test_another_seed_gives_another_result():
    crops = noise(4, 16)
    assert difference(changed(crops, STRONG, 1), changed(crops, STRONG, 2)) > 10


@pytest.mark.parametrize(
    "amount",
    [
        {"turn_deg": 30.0},
        {"scale": 0.3},
        {"shift": 0.3},
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"saturation": 0.9},
        {"erase": 1.0},
    ],
)
def test_every_crop_of_a_batch_draws_its_own(amount: dict[str, float]):
    out = changed(noise(1, 24).expand(6, -1, -1, -1), replace(NO_AUGMENT, **amount))
    assert len({tuple(crop.flatten().tolist()) for crop in out}) == 6


@settings(deadline=None)
@given(amount=amounts, seed=st.integers(0, 2**31), num=st.integers(2, 5))
def test_a_crops_change_does_not_depend_on_what_the_others_show(amount: CropAugment, seed: int, num: int):
    crops = noise(num, 12, seed)
    others = torch.cat([crops[:1], 255 - crops[1:]])
    assert difference(changed(crops, amount, seed)[:1], changed(others, amount, seed)[:1]) == 0


def test_a_turn_moves_a_corner_by_its_angle_and_not_the_centre():
    side, degrees = 101, 30.0
    crops = plain(64, side, (0, 0, 0))
    crops[:, 48:53, 48:53] = 255
    crops[:, 48:53, 88:93] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    out = changed(crops, replace(NO_AUGMENT, turn_deg=degrees)).double()
    place = torch.arange(side, dtype=torch.float64) - 50
    red, white = out[..., 0] - out[..., 1], out[..., 1]
    for mass, radius in ((white, 0.0), (red, 40.0)):
        total = mass.sum(dim=(1, 2))
        x, y = (mass.sum(dim=1) * place).sum(dim=1) / total, (mass.sum(dim=2) * place).sum(dim=1) / total
        assert torch.hypot(x, y) == pytest.approx(radius, abs=0.5)
    angle = torch.rad2deg(torch.atan2(y, x))
    assert angle.abs().max() <= degrees + 0.5 and angle.min() < -0.5 * degrees and angle.max() > 0.5 * degrees


def test_a_crop_that_is_mirrored_and_turned_keeps_its_distances():
    side = 101
    crops = plain(64, side, (0, 0, 0))
    crops[:, 48:53, 88:93, 0] = 255
    crops[:, 88:93, 48:53, 1] = 255
    out = changed(crops, replace(NO_AUGMENT, mirror=0.5, turn_deg=30.0)).double()
    place = torch.arange(side, dtype=torch.float64) - 50
    centres = []
    for mass in (out[..., 0], out[..., 1]):
        moments = [(mass.sum(dim=axis) * place).sum(dim=1) / mass.sum(dim=(1, 2)) for axis in (1, 2)]
        centres.append(torch.stack(moments, dim=1))
    (x, y), (u, v) = (centre.unbind(dim=1) for centre in centres)
    assert torch.hypot(x, y) == pytest.approx(40.0, abs=0.5) and torch.hypot(u, v) == pytest.approx(40.0, abs=0.5)
    assert torch.hypot(x - u, y - v) == pytest.approx(40.0 * 2**0.5, abs=0.5)
    turned_right = x * v - y * u > 0
    assert 15 < int(turned_right.sum()) < 49  # and the others are mirrored


def test_a_scale_keeps_the_size_of_a_square_within_its_share_and_its_centre():
    crops = plain(64, 100, (0, 0, 0))
    crops[:, 30:70, 30:70] = 255
    out = changed(crops, replace(NO_AUGMENT, scale=0.2)).double()[..., 0] / 255
    width = out.sum(dim=(1, 2)).sqrt() / 40
    assert 0.79 <= width.min() < 0.85 and 1.15 < width.max() <= 1.21
    assert (out - out.flip(1)).abs().max() <= 2 / 255 and (out - out.flip(2)).abs().max() <= 2 / 255


def test_a_shift_moves_by_its_share_of_half_a_side_and_what_comes_in_is_black():
    crops = plain(64, 100, (255, 255, 255))
    out = changed(crops, replace(NO_AUGMENT, shift=0.2)).double()[..., 0] / 255
    lost_rows, lost_columns = (100 - out.amax(dim=axis).sum(dim=1) for axis in (2, 1))
    for lost in (lost_rows, lost_columns):
        assert 0 <= lost.min() < 3 and 7 < lost.max() <= 10.01  # of 50 px


@settings(deadline=None)
@given(color=st.tuples(*[st.integers(1, 255)] * 3), amount=st.floats(0.0, 0.99), seed=st.integers(0, 2**31))
def test_brightness_multiplies_all_channels_by_one_factor_within_its_amount(
    color: tuple[int, int, int], amount: float, seed: int
):
    out = flat(changed(plain(8, 2, color), replace(NO_AUGMENT, brightness=amount), seed))
    shown = torch.tensor(color, dtype=torch.float64)
    brightest = int(shown.argmax())
    factor = out[:, brightest] / shown[brightest]
    rounding = 0.51 / shown[brightest]
    assert (factor <= 1 + amount + rounding).all()
    assert ((factor >= 1 - amount - rounding) | (out[:, brightest] == 255)).all()
    unclipped = out[:, brightest] < 255
    assert ((out - factor[:, None] * shown).abs() <= 1.02)[unclipped].all()


@settings(deadline=None)
@given(level=st.integers(0, 255), contrast=st.floats(0.0, 0.99), saturation=st.floats(0.0, 0.99), grey=st.floats(0, 1))
def test_contrast_and_saturation_leave_a_grey_picture(level: int, contrast: float, saturation: float, grey: float):
    crops = plain(4, 3, (level,) * 3)
    out = changed(crops, replace(NO_AUGMENT, contrast=contrast, saturation=saturation, grey=grey))
    assert difference(out, crops) <= 1


@settings(deadline=None)
@given(color=st.tuples(*[st.integers(90, 160)] * 3), amount=st.floats(0.0, 0.5), seed=st.integers(0, 2**31))
def test_contrast_keeps_the_mean_of_a_picture_and_saturation_its_luma(
    color: tuple[int, int, int], amount: float, seed: int
):
    crops = plain(8, 2, color)
    before, luma = flat(crops), torch.tensor(GREY, dtype=torch.float64)
    for settings_, weight in (
        (replace(NO_AUGMENT, contrast=amount), torch.full((3,), 1 / 3, dtype=torch.float64)),
        (replace(NO_AUGMENT, saturation=amount), luma),
    ):
        out = flat(changed(crops, settings_, seed))
        assert (out @ weight - before @ weight).abs().max() <= 0.51
        centre = (before @ weight)[:, None]
        spread, given_spread = (out - centre).abs(), (before - centre).abs()
        assert (spread <= (1 + amount) * given_spread + 0.51).all()
        assert (spread >= (1 - amount) * given_spread - 0.51).all()


def test_brightness_and_contrast_and_saturation_reach_both_ends_of_their_range():
    color = torch.tensor([60.0, 100.0, 140.0], dtype=torch.float64)
    crops = plain(200, 1, (60, 100, 140))
    bright = flat(changed(crops, replace(NO_AUGMENT, brightness=0.5)))[:, 1] / color[1]
    contrast, saturation = (
        (out[:, 2] - out[:, 0]) / 80
        for out in (flat(changed(crops, replace(NO_AUGMENT, **{name: 0.5}))) for name in ("contrast", "saturation"))
    )
    for factor in (bright, contrast, saturation):
        assert 0.48 < factor.min() < 0.55 and 1.45 < factor.max() < 1.52


def test_a_sure_loss_of_colour_leaves_the_luma():
    crops = noise(5, 12)
    out = changed(crops, replace(NO_AUGMENT, grey=1.0))
    expected = (crops.double() @ torch.tensor(GREY, dtype=torch.float64)).round()
    assert (out[..., :1] == out).all() and (out[..., 0].double() - expected).abs().max() <= 1


def test_a_fifth_of_the_crops_loses_its_colour_and_the_others_keep_theirs():
    crops = plain(500, 1, (200, 100, 50))
    out = flat(changed(crops, replace(NO_AUGMENT, grey=0.2)))
    grey, kept = (out == out[:, :1]).all(dim=1), (out - flat(crops)).abs().amax(dim=1) <= 1
    assert (grey ^ kept).all() and 60 < int(grey.sum()) < 140


@settings(deadline=None)
@given(side=st.integers(10, 80), seed=st.integers(0, 2**31))
def test_an_erased_patch_is_one_black_rectangle_of_a_tenth_to_a_third_of_each_side(side: int, seed: int):
    out = changed(plain(6, side, (255, 200, 100)), replace(NO_AUGMENT, erase=1.0), seed)
    for crop in out:
        black = (crop == 0).all(dim=2)
        assert (black | (crop.int() - torch.tensor([255, 200, 100])).abs().le(1).all(dim=2)).all()
        rows, columns = (black.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
        for place in (rows, columns):
            assert place == list(range(place[0], place[-1] + 1))
            assert 0.1 * side - 1 <= len(place) <= 0.33 * side + 1
        assert int(black.sum()) == len(rows) * len(columns)


def test_patches_are_erased_in_as_many_crops_as_asked_for():
    out = changed(plain(800, 20, (255, 255, 255)), replace(NO_AUGMENT, erase=0.25))
    assert 150 < int((out == 0).all(dim=3).flatten(1).any(dim=1).sum()) < 250


def test_patches_are_erased_all_over_the_crop():
    black = (changed(plain(800, 20, (255, 255, 255)), replace(NO_AUGMENT, erase=1.0)) == 0).all(dim=3)
    assert black.any(dim=0)[2:-2, 2:-2].all()
    assert black.any(dim=(0, 1)).all() and black.any(dim=(0, 2)).all()
