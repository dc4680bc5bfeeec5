"""Starting the encoder's trunk from torchvision's EfficientNet-B1, at its full size."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from affect.face.grada import Grada, load_trunk
from affect.settings.encoder import GradaShape


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A file of torchvision's network, classifier included, with statistics that are not the fresh ones."""
    from torchvision.models import efficientnet_b1

    torch.manual_seed(0)
    state = {
        name: torch.randn_like(value) if value.is_floating_point() else value + 7
        for name, value in efficientnet_b1(weights=None).state_dict().items()
    }
    path = tmp_path_factory.mktemp("trunk") / "b1.safetensors"
    save_file(state, path)
    return path, state


def test_every_tensor_of_the_trunk_comes_from_torchvisions_network(network: tuple[Path, dict[str, Tensor]]):
    path, state = network
    model = Grada(GradaShape())
    heads = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("trunk.")}
    load_trunk(model, path)
    after = model.state_dict()
    trunk = {name.removeprefix("trunk.0."): value for name, value in after.items() if name.startswith("trunk.")}
    features = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    assert trunk.keys() == features.keys() and len(trunk) > 300
    assert all(torch.equal(trunk[name], value) for name, value in features.items())
    assert heads and all(torch.equal(after[name], value) for name, value in heads.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_filled_trunk_computes_what_torchvisions_network_computes(tmp_path: Path):
    from torchvision.models import efficientnet_b1

    torch.manual_seed(1)
    reference = efficientnet_b1(weights=None)
    save_file(reference.state_dict(), tmp_path / "b1.safetensors")
    model = Grada(GradaShape())
    load_trunk(model, tmp_path / "b1.safetensors")
    crops = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = reference.eval().avgpool(reference.features(crops)).flatten(1)
        assert torch.allclose(model.eval().trunk(crops), expected, rtol=1e-5, atol=1e-7)
    assert expected.std() > 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            GradaShape(width=1.1, depth=1.2),
            r"tensor 3\.0\.block\.3\.0\.weight is \[40, 144, 1, 1\], \[48, 144, 1, 1\] is wanted",
        ),
        (GradaShape(width=0.5), r"tensor 0\.0\.weight is \[32, 3, 3, 3\], \[16, 3, 3, 3\] is wanted"),
        (GradaShape(depth=1.0), r"tensor 1\.1\.block\S+ \[.*\] does not belong to the model"),
        (GradaShape(depth=2.0), r"tensor 2\.3\.block\S+ \[.*\] is missing"),
    ],
)
def test_a_network_of_another_size_is_an_error_that_names_the_first_wrong_tensor(
    shape: GradaShape, message: str, network: tuple[Path, dict[str, Tensor]]
):
    model = Grada(shape)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"b1\.safetensors holds no EfficientNet of this size: {message}"):
        load_trunk(model, network[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
