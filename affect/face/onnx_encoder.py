"""Encoder from a network in ONNX format: any published face network that reads a crop and returns numbers per class.

A network is described by a JSON file beside it (``net.onnx``, ``net.json``) with the fields of :class:`OnnxFace`, or is
one of :data:`NETWORKS`. The embedding is the input of the network's last linear layer, which is made an output of the
graph. An ONNX file holds no code.

Source: ONNX operators Gemm and MatMul; onnxruntime's Python API.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from affect import weights
from affect.device import default_device
from affect.face.crop import IMAGENET_MEAN, IMAGENET_STD, Crop
from affect.face.encoding import Encoding, FrameEncoder
from affect.face.mesh import Mesh
from affect.settings.base import Count, NonNegative, Settings
from affect.settings.extraction import Face
from affect.settings.names import EXPRESSIONS
from affect.settings.paths import with_settings
from affect.weights import WeightsError

ALIASES = {"happy": "happiness", "sad": "sadness", "angry": "anger", "surprised": "surprise", "contempt": "other"}
"""Class names of other corpora, as names of :data:`EXPRESSIONS`. Contempt is a class of AffectNet alone."""
EMBEDDING = "affect_embedding"
"""Name of the graph output that is added."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxFace(Settings):
    """Input and outputs of a face network."""

    side_px: Count
    """Side of the square input in pixels."""
    columns: tuple[str, ...]
    """Name of each column of the output: ``valence``, ``arousal``, names of expressions; others are ignored."""
    input: str = "input"
    """Name of the graph's input, (n, 3, side, side), RGB."""
    output: str = "output"
    """Name of the graph's output, (n, columns)."""
    squash: bool = True
    """Whether the face box is stretched to the square; else its longest side fits and the rest is black."""
    margin: NonNegative = 0.0
    """Share of width and height that the face box is grown by on each side."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of red, green and blue that is subtracted, of values in [0, 1]."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of red, green and blue that the difference is divided by."""
    licence: str = ""
    """Licence of the network, for the user."""

    def check(self) -> None:
        """Checks constraints between fields."""
        self.require(len(self.mean) == 3 and len(self.std) == 3, "mean and std have to be three numbers each")
        self.require(all(value > 0 for value in self.std), f"std is {self.std}, it has to be > 0")
        names = self.names
        twice = sorted(
            {name for name in names if names.count(name) > 1 and name in (*EXPRESSIONS, "valence", "arousal")}
        )
        self.require(not twice, f"columns name {', '.join(twice)} more than once")
        both = ("valence" in names) == ("arousal" in names)
        self.require(both, "columns have one of valence and arousal, they have to be both or none")

    @property
    def names(self) -> list[str]:
        """Columns in lower case, with the names of :data:`EXPRESSIONS`."""
        return [ALIASES.get(name.lower(), name.lower()) for name in self.columns]


_AFFECTNET = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
_HSEMOTION: dict[str, Any] = {
    "columns": (*_AFFECTNET, "valence", "arousal"),
    "licence": "Apache-2.0; trained on VGGFace2 and AffectNet, which are for research",
}
NETWORKS = {
    "hsemotion": OnnxFace(side_px=224, **_HSEMOTION),
    "hsemotion_mobilevit": OnnxFace(side_px=224, **_HSEMOTION),
    "hsemotion_mbf": OnnxFace(side_px=112, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), **_HSEMOTION),
}
"""Networks by the name of their file in :data:`affect.weights.FILES`.

Source: HSEmotion (github.com/sb-ai-lab/EmotiEffLib), its multi-task networks of valence, arousal and expressions.
"""


def describe(name: str, path: Path) -> OnnxFace:
    """Description of a network.

    Args:
        name: as the settings have it: a key of :data:`NETWORKS`, or a path.
        path: its local file.

    Raises:
        WeightsError: it is no known network, and there is no description beside it, or a wrong one.
    """
    if name in NETWORKS and not Path(name).exists():
        return NETWORKS[name]
    beside = path.with_suffix(".json")
    try:
        values = json.loads(beside.read_text())
        if lacking := {"side_px", "columns"} - values.keys():
            raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        described: OnnxFace = with_settings(OnnxFace(side_px=1, columns=()), values)
        return described
    except FileNotFoundError:
        known = ", ".join(NETWORKS)
        raise WeightsError(f"{path}: {beside.name}, which describes it, is not beside it; known are {known}") from None
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise WeightsError(f"{beside}: it does not describe a network: {error}") from error


def graph_with_embedding(path: Path, description: OnnxFace) -> bytes:
    """The network with the input of its last linear layer as second output, serialised.

    Raises:
        WeightsError: it is no ONNX file, its weights lie outside of its folder, or its inputs and outputs are not those
            of the description.
    """
    onnx = _import("onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
        outside = [place for place in _external_files(model) if not _is_within(path.parent / place, path.parent)]
        if outside:
            raise WeightsError(f"{path}: its weights lie in {outside[0]}, outside of its folder")
        onnx.load_external_data_for_model(model, str(path.parent))
    except WeightsError:
        raise
    except Exception as error:  # protobuf's and onnx' own errors have no common class
        words = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: it is no ONNX network (if it was downloaded, delete it): {words}") from error
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    _check(
        path,
        "input",
        [value for value in graph.input if value.name not in constants],
        description.input,
        (3, description.side_px, description.side_px),
    )
    _check(path, "output", list(graph.output), description.output, (len(description.columns),))
    graph.node.append(onnx.helper.make_node("Identity", [_last_input(path, graph, description.output)], [EMBEDDING]))
    graph.output.append(onnx.helper.make_tensor_value_info(EMBEDDING, onnx.TensorProto.FLOAT, None))
    return bytes(model.SerializeToString())


def _external_files(model: Any) -> list[str]:  # noqa: ANN401 -- onnx.ModelProto
    """Files beside a network that hold its weights."""
    return [
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    ]


def external_files(path: Path) -> list[Path]:
    """Files within a network's folder that hold its weights; none of a file that is no network."""
    onnx = _import("onnx")
    try:
        names = set(_external_files(onnx.load(str(path), load_external_data=False)))
    except Exception:  # onnx' errors have no common class; loading the network says what is wrong with it
        return []
    return [path.parent / name for name in sorted(names) if _is_within(path.parent / name, path.parent)]


def _is_within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _check(path: Path, what: str, found: Sequence[Any], name: str, shape: tuple[int, ...]) -> None:
    """Checks the graph's only input or output: its name, and its shape behind the batch axis.

    Raises:
        WeightsError: it differs.
    """
    names = [value.name for value in found]
    if names != [name]:
        raise WeightsError(f"{path}: its {what} is {', '.join(names) or 'missing'}, {name} is wanted")
    axes = found[0].type.tensor_type.shape.dim
    actual = [axis.dim_value if axis.HasField("dim_value") else None for axis in axes]
    if len(actual) != len(shape) + 1 or any(a not in (None, b) for a, b in zip(actual[1:], shape, strict=True)):
        words = " x ".join("n" if a is None else str(a) for a in actual)
        raise WeightsError(f"{path}: its {what} {name} is {words}, n x {' x '.join(map(str, shape))} is wanted")
    if actual[0] not in (None, 0):
        raise WeightsError(f"{path}: its {what} {name} takes batches of {actual[0]} alone: export it with a free axis")


def _last_input(path: Path, graph: Any, output: str) -> str:  # noqa: ANN401 -- onnx.GraphProto
    """Name of the input of the last linear layer: of the Gemm or MatMul from which the output is computed."""
    makers = {name: node for node in graph.node for name in node.output}
    names, seen = [output], set[str]()
    while names:
        node = makers.get(name := names.pop())
        if node is None or name in seen:
            continue
        if node.op_type in ("Gemm", "MatMul"):
            return str(node.input[0])
        seen.add(name)
        names += reversed(node.input)
    raise WeightsError(f"{path}: its output is computed by no linear layer (Gemm, MatMul): it has no embedding")


def _import(name: str) -> Any:  # noqa: ANN401 -- a module
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WeightsError(f"face.encoder onnx: pip install 'affect[onnx]' first ({error})") from error


class OnnxEncoder(FrameEncoder):
    """Runs a network in batches with onnxruntime, on CUDA if its provider is installed, in float32.

    Args:
        settings: weights and micro-batch.
        device: ``cuda`` or ``cpu``; the available one if None.

    Raises:
        WeightsError: the network cannot be fetched, read or run.
    """

    def __init__(self, settings: Face, device: str | None = None) -> None:
        """Loads the network."""
        runtime = _import("onnxruntime")
        path = weights.file(settings.weights)
        self._description = describe(settings.weights, path)
        content = graph_with_embedding(path, self._description)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))  # 0: one per core
        options.log_severity_level = 3  # errors
        on_card = (device or default_device()) == "cuda"
        if on_card and "CUDAExecutionProvider" not in runtime.get_available_providers():
            logging.getLogger(__name__).warning(
                "onnxruntime runs on the CPU here: pip install onnxruntime-gpu for the GPU"
            )
            on_card = False
        providers = ["CUDAExecutionProvider"] * on_card + ["CPUExecutionProvider"]
        try:
            self._session = runtime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # onnxruntime's errors have no common class
            raise weights.load_error(str(path), error) from error
        self._size = settings.batch_size("cuda" if on_card else "cpu")
        self.crop = Crop(self._description.side_px, self._description.squash, self._description.margin)
        names = self._description.names
        self._expressions = [names.index(name) if name in names else None for name in EXPRESSIONS]
        self.known = [i for i, column in enumerate(self._expressions) if column is not None]
        self._affect = [names.index(name) for name in ("valence", "arousal") if name in names]

    def __call__(self, crops: UInt8[ndarray, "n side side 3"], meshes: Sequence[Mesh | None] = ()) -> Encoding:
        """Encodes n >= 1 crops; meshes are not used. Valence and arousal are clipped to [-1, 1]."""
        parts = [self._run(crops[start : start + self._size]) for start in range(0, len(crops), self._size)]
        columns, embedding = (np.concatenate(part) for part in zip(*parts, strict=True))
        expression = None
        if self.known:
            expression = np.full((len(crops), len(EXPRESSIONS)), np.nan, dtype=np.float32)
            expression[:, self.known] = columns[:, [c for c in self._expressions if c is not None]]
        affect = columns[:, self._affect].clip(-1, 1) if self._affect else None
        return Encoding(embedding, expression, affect)

    def _run(self, crops: UInt8[ndarray, "n side side 3"]) -> tuple[Float[ndarray, "n C"], Float[ndarray, "n D"]]:
        """Columns and embedding of one batch."""
        description = self._description
        mean, std = (np.asarray(v, dtype=np.float32) for v in (description.mean, description.std))
        pixels = crops * (1 / (255 * std)) - mean / std  # float32
        inputs = {description.input: np.ascontiguousarray(pixels.astype(np.float32).transpose(0, 3, 1, 2))}
        columns, embedding = self._session.run([description.output, EMBEDDING], inputs)
        return columns, embedding.reshape(len(crops), -1)
