"""Encoders from ONNX files: equal to the network in torch, and clear errors for other files."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from affect.face.onnx_encoder import NETWORKS, OnnxEncoder
from affect.plan.addresses import feature_addresses
from affect.settings import recipes
from affect.settings.extraction import Face
from affect.settings.names import EXPRESSIONS
from affect.weights import WeightsError
from tests.public_weights import export, face_network

IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
HSEMOTION = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
OURS = {"neutral": 5, "anger": 0, "disgust": 2, "fear": 3, "happiness": 4, "sadness": 6, "surprise": 7, "other": 1}
"""Column of HSEmotion for each of our expressions; contempt is none of ours."""


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return face_network()


@pytest.fixture(scope="module")
def hsemotion(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network with the layout of the published file."""
    path = export(network, tmp_path_factory.mktemp("onnx") / "net.onnx")
    path.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(NETWORKS["hsemotion"])))
    return path


def crops_of(count: int, side: int = 224) -> np.ndarray:
    """Noise of another contrast and colour in each crop."""
    rng = np.random.default_rng(1)
    base, contrast = rng.uniform(0, 255, (count, 1, 1, 3)), rng.uniform(10, 100, (count, 1, 1, 1))
    return (base + contrast * rng.normal(size=(count, side, side, 3))).clip(0, 255).astype(np.uint8)


def test_a_network_of_hsemotions_layout_gives_what_torch_gives(hsemotion: Path, network: nn.Module):
    crops = crops_of(5)
    encode = OnnxEncoder(Face(encoder="onnx", weights=str(hsemotion), micro_batch=2), "cpu")
    found = encode(crops)
    pixels = torch.from_numpy(((crops / 255 - IMAGENET[0]) / IMAGENET[1]).transpose(0, 3, 1, 2)).float()
    with torch.inference_mode():
        expected = network(pixels).numpy()
        embedding = network.avgpool(network.features(pixels)).flatten(1).numpy()
    scale = np.abs(expected).max()
    assert found.affect == pytest.approx(expected[:, 8:].clip(-1, 1), abs=1e-4 * scale)
    assert found.expression == pytest.approx(expected[:, [OURS[name] for name in EXPRESSIONS]], abs=1e-4 * scale)
    assert found.embedding.shape == (5, 1280)
    assert found.embedding == pytest.approx(embedding, abs=1e-4 * np.abs(embedding).max())
    assert np.ptp(expected, axis=0).min() > 1e-3  # not a constant
    assert encode.crop == (224, True, 0.0)


def gemm(columns: int, side: int = 8, *, opset: int = 11) -> onnx.ModelProto:
    """A network of one linear layer on the flattened crop."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(3 * side * side, columns)).astype(np.float32), "w")
    bias = numpy_helper.from_array(rng.normal(size=columns).astype(np.float32), "b")
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["output"]),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, side, side])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", columns])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight, bias])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def described(path: Path, model: onnx.ModelProto, columns: list[str], **more: object) -> Face:
    """Writes a network and its description; settings that name it."""
    onnx.save(model, str(path))
    path.with_suffix(".json").write_text(json.dumps({"side_px": 8, "columns": columns, **more}))
    return Face(encoder="onnx", weights=str(path))


def test_columns_are_read_by_name_and_a_network_may_lack_some(tmp_path: Path):
    crops = crops_of(3, 8)
    columns = ["arousal", "Sad", "identity", "valence"]
    found = OnnxEncoder(described(tmp_path / "a.onnx", gemm(4), columns, mean=[0, 0, 0], std=[1, 1, 1]), "cpu")(crops)
    flat = (crops / 255).transpose(0, 3, 1, 2).reshape(3, -1)
    rng = np.random.default_rng(0)
    expected = flat @ rng.normal(size=(192, 4)) + rng.normal(size=4)
    assert found.affect == pytest.approx(expected[:, [3, 0]].clip(-1, 1), abs=1e-4)
    sadness = EXPRESSIONS.index("sadness")
    assert found.expression[:, sadness] == pytest.approx(expected[:, 1], abs=1e-4)
    assert np.isnan(np.delete(found.expression, sadness, axis=1)).all()
    assert found.finite([sadness]).all()
    assert found.embedding == pytest.approx(flat, abs=1e-5)
    only = OnnxEncoder(described(tmp_path / "b.onnx", gemm(2), ["valence", "arousal"]), "cpu")
    assert only(crops).expression is None and only.known == []
    mute = OnnxEncoder(described(tmp_path / "c.onnx", gemm(2), ["fear", "anger"]), "cpu")(crops)
    assert mute.affect is None and mute.expression is not None


def test_an_embedding_of_a_face_does_not_depend_on_its_batch(tmp_path: Path):
    settings = described(tmp_path / "a.onnx", gemm(2), ["valence", "arousal"])
    crops = crops_of(7, 8)
    one, many = (OnnxEncoder(dataclasses.replace(settings, micro_batch=n), "cpu")(crops) for n in (1, 32))
    assert one.affect == pytest.approx(many.affect, abs=1e-5)


def test_the_last_linear_layer_is_found_whichever_way_its_bias_is_added(tmp_path: Path):
    model = gemm(2)
    model.graph.node[2].CopyFrom(helper.make_node("Add", ["b", "product"], ["output"]))
    other, crops = described(tmp_path / "a.onnx", model, ["valence", "arousal"]), crops_of(3, 8)
    usual = described(tmp_path / "b.onnx", gemm(2), ["valence", "arousal"])
    found, expected = (OnnxEncoder(settings, "cpu")(crops) for settings in (other, usual))
    np.testing.assert_array_equal(found.embedding, expected.embedding)


def spoilt(folder: Path, name: str) -> Face:
    """A network that cannot be used."""
    path = folder / "net.onnx"
    if name == "no description":
        settings = described(path, gemm(2), ["valence", "arousal"])
        path.with_suffix(".json").unlink()
        return settings
    more = {"unknown key": {"colour": 1}, "std": {"std": [0, 1, 1]}, "another input": {"input": "image"}}.get(name, {})
    columns = {"valence alone": ["valence", "fear"], "twice": ["valence", "arousal", "valence"]}.get(name)
    columns = columns or ["valence", "arousal"]
    model = gemm(3 if name == "another width" else len(columns), 16 if name == "another side" else 8)
    if name == "fixed batch":
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    if name == "two outputs":
        model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, None))
    if name == "no linear layer":
        model.graph.node[2].CopyFrom(helper.make_node("Sin", ["input"], ["output"]))
    if name == "opset":
        model.opset_import[0].version = 999
    if name == "weights elsewhere":
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../weights.bin")
        tensor.ClearField("raw_data")
    settings = described(path, model, columns, **more)
    if name == "no network":
        path.write_bytes(b"\x80\x04pickle")
    if name == "cut":
        path.write_bytes(path.read_bytes()[:300])
    if name == "no file":
        path.unlink()
    return settings


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no file", r"net\.onnx: no such file, and not a known name \(.*hsemotion"),
        ("no network", r"net\.onnx: it is no ONNX network"),
        ("cut", r"net\.onnx: it is no ONNX network|net\.onnx: its output is missing|net\.onnx: its input"),
        ("no description", r"net\.onnx: net\.json, which describes it, is not beside it; known are hsemotion"),
        ("unknown key", r"net\.json: it does not describe a network: colour: OnnxFace has no setting colour"),
        ("std", r"net\.json: it does not describe a network: OnnxFace: std"),
        ("valence alone", r"net\.json: .*have one of valence and arousal"),
        ("twice", r"net\.json: .*columns name valence more than once"),
        ("another input", r"net\.onnx: its input is input, image is wanted"),
        ("another side", r"net\.onnx: its input input is n x 3 x 16 x 16, n x 3 x 8 x 8 is wanted"),
        ("another width", r"net\.onnx: its output output is n x 3, n x 2 is wanted"),
        ("two outputs", r"net\.onnx: its output is output, flat, output is wanted"),
        ("fixed batch", r"net\.onnx: its input input takes batches of 1 alone"),
        ("no linear layer", r"net\.onnx: its output is computed by no linear layer"),
        ("opset", r"net\.onnx: cannot be loaded: .*opset"),
        ("weights elsewhere", r"net\.onnx: its weights lie in \.\./weights\.bin, outside of its folder"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, name: str, message: str):
    with pytest.raises(WeightsError, match=message) as raised:
        OnnxEncoder(spoilt(tmp_path, name), "cpu")
    assert "\n" not in str(raised.value)


def test_weights_beside_the_network_are_read(tmp_path: Path):
    settings = described(tmp_path / "whole.onnx", gemm(2), ["valence", "arousal"])
    path = tmp_path / "apart.onnx"
    onnx.save(gemm(2), str(path), save_as_external_data=True, location="apart.bin", size_threshold=0)
    path.with_suffix(".json").write_bytes((tmp_path / "whole.json").read_bytes())
    crops = crops_of(2, 8)
    whole, apart = (
        OnnxEncoder(dataclasses.replace(settings, weights=str(p)), "cpu")(crops) for p in (settings.weights, path)
    )
    assert (whole.affect == apart.affect).all()


def test_an_address_follows_weights_beside_the_network(tmp_path: Path):
    settings = described(tmp_path / "apart.onnx", gemm(2), ["valence", "arousal"])
    run = replace(recipes.public(), systems=("face",), face=settings)
    onnx.save(gemm(2), settings.weights, save_as_external_data=True, location="w.bin", size_threshold=0)
    before = feature_addresses(run)["face"]
    (tmp_path / "w.bin").write_bytes((tmp_path / "w.bin").read_bytes()[::-1])
    assert feature_addresses(run)["face"] != before
