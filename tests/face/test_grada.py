"""The frame encoder: its crop, its size, and its checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from affect.config import Face
from affect.face import grada
from affect.face.grada import Encoder, Grada, Shape, letterbox, normalise

TINY = Shape(width=0.1, depth=0.1, embedding=8)


def tiny() -> Grada:
    """A small encoder whose running statistics are not the initial ones."""
    torch.manual_seed(0)
    model = Grada(TINY)
    model.train()(torch.randn(8, 3, 32, 32))
    return model.eval()


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ([0.0, 0.0, 1.0, 1.0], (60, 180), (0, 240)),  # 200 x 100 px: half as high as wide
        ([0.25, 0.0, 0.5, 1.0], (0, 240), (60, 180)),  # 50 x 100 px
        ([0.0, 0.0, 0.5, 1.0], (0, 240), (0, 240)),
    ],
)
def test_a_crop_is_scaled_to_its_longest_side_and_centred_on_black(
    box: list[float], rows: tuple[int, int], columns: tuple[int, int]
):
    picture = np.full((100, 200, 3), 200, dtype=np.uint8)
    square = letterbox(picture, np.array(box), 240)
    expected = np.zeros((240, 240, 3), dtype=np.uint8)
    expected[slice(*rows), slice(*columns)] = 200
    assert (square == expected).all()


def test_a_crop_holds_what_the_box_holds():
    picture = np.zeros((60, 80, 3), dtype=np.uint8)
    picture[20:40, 40:60] = (10, 120, 250)
    assert (letterbox(picture, np.array([0.5, 1 / 3, 0.75, 2 / 3]), 32) == (10, 120, 250)).all()
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, :, None] * 8, (32, 32, 3)).copy()
    assert (letterbox(ramp, np.array([0.0, 0, 1, 1]), 32) == ramp).all()


coordinates = st.floats(0, 1)


@example((1.0, 0.0), (1.0, 1.0), 20, 10)  # a face that has all but left the picture
@given(st.tuples(coordinates, coordinates), st.tuples(coordinates, coordinates), st.integers(1, 50), st.integers(1, 50))
def test_any_box_within_the_picture_gives_a_square(a: tuple, b: tuple, width: int, height: int):
    box = np.array([min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])])
    square = letterbox(np.full((height, width, 3), 9, dtype=np.uint8), box, 24)
    assert square.shape == (24, 24, 3) and square.max() == 9
    lit = np.argwhere(square[..., 0] == 9)
    assert max(np.ptp(lit, axis=0)) == 23


def test_pixels_are_normalised_as_imagenet_wants_them():
    crops = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    crops[0, 0, 1] = torch.tensor([255, 128, 0], dtype=torch.uint8)
    values = normalise(crops)
    assert values.shape == (1, 3, 2, 2)
    assert values[0, :, 0, 1].tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, -0.406 / 0.225]
    )
    assert values[0, :, 1, 1].tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])


def test_the_default_size_is_efficientnet_b1():
    from torchvision.models import efficientnet_b1

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        model, reference = Grada(Shape()), efficientnet_b1()
    assert model.embedding[1].in_features == 1280 and model.embedding[1].out_features == 256
    assert count(model.trunk) == count(reference.features)
    assert {n: p.shape for n, p in model.trunk[0].state_dict().items()} == {
        n: p.shape for n, p in reference.features.state_dict().items()
    }
    assert count(model.expression) == 257 * 8 and count(model.affect) == 257 * 2


def test_a_checkpoint_read_back_says_the_same(tmp_path: Path):
    model, crops = tiny(), torch.randn(3, 3, 32, 32)
    grada.save(model, tmp_path / "deep" / "grada")
    again = grada.load(tmp_path / "deep" / "grada")
    assert not again.training and again.shape == TINY
    for before, after in zip(model(crops), again(crops), strict=True):
        assert (before == after).all() and before.std() > 0
    assert model(crops).embedding.abs().max() <= 1


@pytest.mark.parametrize("harm", ["folder", "weights", "cut", "config", "key", "list", "size", "bytes"])
def test_a_folder_that_is_no_checkpoint_is_a_clear_error(harm: str, tmp_path: Path):
    folder = tmp_path / "grada"
    grada.save(tiny(), folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if harm == "folder":
        folder = tmp_path / "missing"
    elif harm == "weights":
        weights.unlink()
    elif harm == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif harm == "size":
        config.write_text(json.dumps({**json.loads(config.read_text()), "embedding": 16}))
    else:
        config.write_bytes({"config": b"{", "key": b'{"depht": 1}', "list": b"[]", "bytes": b"\xff\xfe"}[harm])
    with pytest.raises(ValueError, match=r"(grada|missing) holds no GRADA checkpoint"):
        grada.load(folder)


def test_crops_are_encoded_alike_in_one_batch_and_in_many(tmp_path: Path):
    grada.save(tiny(), tmp_path)
    crops = np.random.default_rng(0).integers(0, 256, size=(5, 32, 32, 3), dtype=np.uint8)
    one, many = (Encoder(tmp_path, Face(crop_px=32, micro_batch=n))(crops) for n in (2, 32))
    assert [value.shape for value in one] == [(5, 8), (5, 8), (5, 2)]
    assert all(a == pytest.approx(b, abs=1e-5) for a, b in zip(one, many, strict=True))
