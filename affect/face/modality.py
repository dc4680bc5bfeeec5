"""Record of the face modality."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray

from affect import weights
from affect.corpus.probe import Probe
from affect.face import part
from affect.face.mesh import MESH_NUMBERS
from affect.face.part import FacePart
from affect.modality import Evidence, Extractor, Modality, Place, Work, millions
from affect.settings import models
from affect.settings.address import address
from affect.settings.encoder import GradaShape
from affect.settings.names import EXPRESSIONS
from affect.settings.run import Run
from affect.settings.spaces import TRANSFORMER_SPACE, under
from affect.storage import schema
from affect.storage.store import Store

FIND_S = 0.02
"""Seconds per frame for detection and mesh on a CPU."""
ONNX_OPERATIONS = 0.8e9
"""Operations of an ONNX network on one face: those of an EfficientNet-B0 at 224 px."""


class Face(Modality):
    """Features: all faces of every frame. Model: a Transformer over one person's embeddings."""

    name = "face"
    rows = schema.FACE
    finite = ("box", "score", "embedding", "valence", "arousal")
    bytes_per_s = 40e3
    model = models.FaceTransformer
    space = under("face_transformer", TRANSFORMER_SPACE)
    demo_space = under("face_transformer", {"hidden": (32, 64), "layers": (1, 2)})
    evidence = "face seen"
    no_evidence = "the face is not found"

    def extractor(self, run: Run, device: str) -> Extractor:
        """Loads detector, mesh model and encoder."""
        from affect.face.clip import FaceClip

        return FaceClip(run.face, device)

    def work(self, run: Run, probe: Probe) -> Work:
        """Detection and mesh of every frame, and the encoder on one face per frame."""
        fps, operations = probe.clock.fps, _operations(run)
        words = f"{fps:.3g} frames a second of {millions(operations)} operations"
        return Work(fps * operations, fps * FIND_S, words)

    def content(self, run: Run) -> list[str]:
        """Identities of the encoder, the landmarker, and the detector if it is a separate file."""
        names = [run.face.landmarker] + [run.face.yolo_weights] * (run.face.detector == "yolo")
        return [*_encoder(run), *(weights.identity(name) for name in names)]

    def fetch(self, run: Run) -> None:
        """Downloads the landmarker, and downloads and checks an ONNX network."""
        weights.file(run.face.landmarker)
        if run.face.encoder == "onnx" and run.face.weights:
            from affect.face.onnx_encoder import OnnxEncoder

            OnnxEncoder(run.face, "cpu")

    def part_address(self, place: Place) -> str:
        """Hash of the person, the hints, the tracking settings, and the clips' keys and outcomes."""
        return address(place.person, list(place.hints), place.run.tracking, place.clips.get(self.name))

    def part(self, evidence: Evidence) -> FacePart:
        """Embedding and lip area at each frame."""
        return part.from_evidence(evidence)

    def tables(self, part_: FacePart) -> dict[str, pa.Table]:
        """One table, ``face``."""
        return {self.name: part.to_table(part_)}

    def load(self, store: Store, keys: Mapping[str, str]) -> FacePart:
        """Reads the table."""
        return part.from_table(store.get(keys[self.name]).table)

    def num_ratings(self, run: Run) -> int:
        """Valence, arousal and expressions; of a mesh encoder, its embedding in place of expressions."""
        return 2 + (MESH_NUMBERS if run.face.encoder == "blendshapes" else len(EXPRESSIONS))

    def rates_affect(self, run: Run) -> bool:
        """False for an encoder of meshes, and for a network without valence and arousal."""
        if run.face.encoder != "onnx":
            return run.face.encoder == "grada"
        from affect.face.onnx_encoder import describe

        return "valence" in describe(run.face.weights, weights.local_path(run.face.weights)).names

    def ratings(self, evidence: Evidence) -> Float[ndarray, "frames K"]:
        """The frame encoder's valence, arousal and expressions."""
        return part.ratings_from_evidence(evidence)

    def width(self, part_: FacePart) -> int:
        """Width of the embedding."""
        return part_.embedding.shape[1]

    def task(self, settings: Any, widths: Mapping[str, int], segment_samples: int) -> Any:  # noqa: ANN401
        """Task on windows of frames."""
        from affect.face.task import FaceTask

        return FaceTask(settings, widths[self.name])

    def points_per_s(self, run: Run, fps: float) -> float:
        """Frames per second, times the overlap of windows."""
        return fps * run.face_transformer.window_frames / run.face_transformer.window_hop_frames


def _encoder(run: Run) -> list[str]:
    """Identity of the frame encoder's weights, if it has any."""
    if run.face.encoder == "blendshapes" or not run.face.weights:
        return []
    if run.face.encoder == "onnx":
        return _network(run.face.weights)
    try:
        return [weights.identity(run.face.weights)]
    except weights.WeightsError as error:
        raise weights.WeightsError(
            f"{error}. GRADA, the frame encoder, has not been published by its authors: train one on labelled pictures "
            "(jobs/train.py grada) and name it with --face.weights, take another encoder (--face.encoder blendshapes "
            "needs no weights, --face.encoder onnx --face.weights hsemotion is public), or a recipe that needs none: "
            "audio, behavior, behavior_vision, behavior_dense"
        ) from error


def _network(name: str) -> list[str]:
    """Identity of an ONNX network, of the description beside it, and of files that hold its weights."""
    path = weights.local_path(name)
    if not path.exists():
        return [weights.identity(name)]
    from affect.face.onnx_encoder import external_files

    beside = [each for each in (path.with_suffix(".json"), *external_files(path)) if each.is_file()]
    return [weights.identity(str(each)) for each in (path, *beside)]


def _operations(run: Run) -> float:
    """Operations of encoding one face."""
    if run.face.encoder == "grada":
        return grada_operations(run.face.weights)
    return ONNX_OPERATIONS if run.face.encoder == "onnx" and run.face.weights else 0.0


@cache
def grada_operations(folder: str) -> float:
    """Operations of encoding one crop; of the paper's encoder if the folder has no config, 0 without a folder."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from affect.face.grada import Grada

    if not folder:
        return 0.0
    path = weights.local_path(folder) / "config.json"
    try:
        shape = GradaShape(**json.loads(path.read_text())) if path.exists() else GradaShape()
    except (ValueError, TypeError) as error:
        raise weights.load_error(folder, error) from error
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Grada(shape).eval()(torch.empty(1, 3, shape.crop_px, shape.crop_px))
    return float(counter.get_total_flops())
