"""The frame encoder: its size and its checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from affect.face import grada
from affect.face.crop import normalise
from affect.face.grada import Encoder, Grada, load_trunk
from affect.layers import load_state
from affect.settings.encoder import GradaShape
from affect.settings.extraction import Face

pytestmark = pytest.mark.numeric

TINY = GradaShape(width=0.1, depth=0.1, embedding=8, crop_px=32)


def crops_of(num: int) -> np.ndarray:
    """Crops that differ much: each one of four by four squares."""
    small = np.random.default_rng(0).integers(0, 256, size=(num, 4, 4, 3), dtype=np.uint8)
    return small.repeat(8, axis=1).repeat(8, axis=2)


def tiny() -> Grada:
    """A small encoder with the running statistics of some crops: without them it would say the same of all."""
    torch.manual_seed(0)
    model = Grada(TINY)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = None
    model.train()(normalise(torch.from_numpy(crops_of(16))))
    return model.eval()


def test_the_default_size_is_efficientnet_b1():
    from torchvision.models import efficientnet_b1

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        model, reference = Grada(GradaShape()), efficientnet_b1()
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
    crops = crops_of(5)
    one, many = (Encoder(tmp_path, Face(crop_px=32, micro_batch=n))(crops) for n in (2, 32))
    assert [value.shape for value in one] == [(5, 8), (5, 8), (5, 2)]
    assert all(a == pytest.approx(b, abs=1e-5) for a, b in zip(one, many, strict=True))


def test_the_encoder_says_of_crops_what_the_model_says_of_their_pixels(tmp_path: Path):
    grada.save(tiny(), tmp_path)
    crops = crops_of(3)
    answers = Encoder(tmp_path, Face(crop_px=32, micro_batch=8))(crops)
    with torch.inference_mode():
        expected = tiny()(normalise(torch.from_numpy(crops)))
    tolerance = 0.05 if torch.cuda.is_available() else 1e-5  # bfloat16 there
    for value, reference in zip(answers, expected, strict=True):
        assert value.dtype == np.float32 and value == pytest.approx(reference.numpy(), abs=tolerance)


def test_the_encoder_does_not_mind_the_order_of_crops(tmp_path: Path):
    grada.save(tiny(), tmp_path)
    encode = Encoder(tmp_path, Face(crop_px=32, micro_batch=2))
    crops = crops_of(5)
    for there, back in zip(encode(crops), encode(crops[::-1].copy()), strict=True):
        assert back[::-1] == pytest.approx(there, abs=1e-5)
        assert np.ptp(there, axis=0).max() > 0.01


class Ends(nn.Module):
    """Two named layers and a count."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)


def ends(**changes: Tensor | None) -> dict[str, Tensor]:
    """The state of such a module, all ones, with tensors replaced (dots as two underscores), added or left out."""
    state: dict[str, Tensor | None] = {name: torch.ones_like(value) for name, value in Ends().state_dict().items()}
    state.update({name.replace("__", "."): value for name, value in changes.items()})
    return {name: value for name, value in state.items() if value is not None}


def test_a_module_is_filled_with_tensors_of_its_names_and_shapes():
    module = Ends()
    load_state(module, ends())
    assert all((value == 1).all() for value in module.state_dict().values())
    assert next(module.parameters()).requires_grad


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first__weight": torch.zeros(2, 4)}, "tensor first.weight is [2, 4], [2, 3] is wanted"),
        ({"first__weight": torch.zeros(3, 2)}, "tensor first.weight is [3, 2], [2, 3] is wanted"),
        ({"first__bias": torch.zeros(2, 1)}, "tensor first.bias is [2, 1], [2] is wanted"),
        ({"first__bias": None}, "tensor first.bias [2] is missing"),
        ({"norm__num_batches_tracked": torch.zeros(1)}, "tensor norm.num_batches_tracked is [1], [] is wanted"),
        ({"last__bias": torch.zeros(7)}, "tensor last.bias [7] does not belong to the model"),
        ({"norm__bias": None, "first__bias": torch.zeros(5)}, "tensor first.bias is [5], [2] is wanted"),
        ({"norm__bias": None, "last__bias": torch.zeros(7)}, "tensor norm.bias [2] is missing"),
    ],
)
def test_the_first_wrong_tensor_is_named_and_nothing_is_changed(changes: dict[str, Tensor | None], message: str):
    module = Ends()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError) as raised:
        load_state(module, ends(**changes))
    assert str(raised.value) == message
    assert all((value == before[name]).all() for name, value in module.state_dict().items())


def test_a_checkpoint_of_another_size_names_the_tensor_and_both_shapes(tmp_path: Path):
    grada.save(tiny(), tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "embedding": 16}))
    with pytest.raises(ValueError, match=r"tensor embedding\.1\.weight is \[8, \d+\], \[16, \d+\] is wanted"):
        grada.load(tmp_path)


def test_the_trunk_starts_from_another_networks_features_and_nothing_else_changes(tmp_path: Path):
    source, model = Grada(TINY), tiny()
    tensors = {f"features.{name}": value for name, value in source.trunk[0].state_dict().items()}
    save_file({**tensors, "classifier.1.bias": torch.zeros(1000)}, tmp_path / "trunk.safetensors")
    heads = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("trunk")}
    load_trunk(model, tmp_path / "trunk.safetensors")
    state = model.trunk[0].state_dict()
    assert all((state[name] == value).all() for name, value in source.trunk[0].state_dict().items())
    assert all((model.state_dict()[name] == value).all() for name, value in heads.items()) and heads


@pytest.mark.parametrize("harm", ["missing", "bytes", "empty", "size"])
def test_a_file_that_is_no_such_network_is_a_clear_error(harm: str, tmp_path: Path):
    path = tmp_path / "trunk.safetensors"
    if harm == "bytes":
        path.write_bytes(b"\xff" * 100)
    elif harm != "missing":
        other = Grada(GradaShape(width=0.2, depth=0.1)).trunk[0].state_dict()
        save_file({f"features.{name}": value for name, value in other.items()} if harm == "size" else {}, path)
    what = {"size": r".* is \[\d.*\], \[\d.*\] is wanted", "empty": r"tensor \S+ \[.*\] is missing"}.get(harm, "")
    with pytest.raises(ValueError, match=rf"trunk\.safetensors holds no EfficientNet of this size: {what}"):
        load_trunk(tiny(), path)


def test_crops_of_another_size_than_it_was_trained_on_are_refused(tmp_path: Path):
    grada.save(tiny(), tmp_path)
    with pytest.raises(ValueError, match="encodes crops of 32 px, the setting crop_px 240"):
        Encoder(tmp_path, Face(crop_px=240))
