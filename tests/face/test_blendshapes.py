"""The encoder without a network: embeddings of meshes, faces without one, head pose."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy import ndarray
from skimage import data
from skimage.transform import rotate

from affect import timeline, weights
from affect.corpus.track import Segments
from affect.face import encoding, part
from affect.face.clip import FaceClip
from affect.face.crop import letterbox
from affect.face.mesh import MESH_NUMBERS, Mesh, Mesher, head_pose
from affect.modality import Evidence
from affect.settings import recipes
from affect.settings.extraction import Face
from affect.storage import schema
from affect.storage.columns import matrix
from tests.face.crossing import extract
from tests.face.test_hostile import walking

FACE = Face(encoder="blendshapes", weights="")


@pytest.fixture(scope="module")
def mesher() -> Mesher:
    try:
        return Mesher(FACE)
    except weights.WeightsError as error:
        pytest.skip(str(error))


def test_an_embedding_is_the_mesh_and_nan_without_one():
    encoder = encoding.load(FACE)
    assert encoder is not None and encoder.crop is None
    mesh = Mesh(0.5, np.arange(52) / 52, np.zeros(45), np.array([0.1, 0.2, 0.3]))
    encoded = encoder(np.empty((2, 0, 0, 3), dtype=np.uint8), [mesh, None])
    np.testing.assert_allclose(encoded.embedding[0], [*np.arange(52) / 52, 0.1, 0.2, 0.3, 0.5], rtol=1e-6)
    assert np.isnan(encoded.embedding[1]).all() and encoded.embedding.shape == (2, MESH_NUMBERS)
    assert encoded.affect is None and encoded.expression is None


def test_faces_without_any_mesh_are_no_evidence():
    """A mesh encoder has no embedding of them, as wide as it would be."""
    row = {"frame": 1, "time_s": 0.1, "face": 0, "box": [0.0] * 4, "score": 1.0, "embedding": [], "colors": [0.0]}
    faces = pa.Table.from_pylist([row | {"thumbnail": [0]}], schema=schema.FACE)
    clock, nothing = timeline.Timestamps(np.arange(3) / 10), np.zeros((0, 2), dtype=np.int64)
    segments = Segments(np.zeros(0), np.zeros(0), nothing, np.zeros(0, dtype=bool), nothing)
    run, rows = recipes.blendshapes(), np.array([0])
    evidence = Evidence({"face": faces}, "main", rows, rows, clock, 3, segments, nothing, run, {})
    found = part.from_evidence(evidence)
    assert not found.valid.any() and found.embedding.shape == (3, MESH_NUMBERS)
    assert np.isnan(part.ratings_from_evidence(evidence)).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_angles_are_those_of_the_rotation(axis: int):
    angle = 0.3
    c, s = np.cos(angle), np.sin(angle)
    turned = np.eye(4)
    i, j = [k for k in range(3) if k != axis]
    turned[i, i] = turned[j, j] = c
    turned[i, j], turned[j, i] = (-s, s) if axis != 1 else (s, -s)
    expected = np.zeros(3)
    expected[axis] = angle
    np.testing.assert_allclose(head_pose(turned), expected, atol=1e-9)


def test_a_tilted_picture_has_that_roll(mesher: Mesher):
    photo = data.astronaut()[:260, 90:350]

    def pose(degrees: float) -> ndarray:
        turned = (255 * rotate(photo, degrees)).astype(np.uint8)
        mesh = mesher(letterbox(turned, np.array([[0.0, 0.0, 1.0, 1.0]]), 240)[0])
        assert mesh is not None
        return np.degrees(mesh.pose)

    assert abs(pose(15.0) - pose(-15.0))[2] == pytest.approx(30, abs=6)


def test_a_clip_has_embeddings_where_faces_have_a_mesh_and_no_ratings(mesher: Mesher, tmp_path: Path):
    extracted = extract(FaceClip(FACE), walking(tmp_path, "a.mkv"))
    table = extracted.table
    meshed = table["blendshapes"].is_valid().to_numpy(zero_copy_only=False)
    lengths = np.array([len(vector) for vector in table["embedding"].to_pylist()])
    assert meshed.any() and (lengths == np.where(meshed, MESH_NUMBERS, 0)).all()
    rows = table.filter(meshed)
    embedding = matrix(rows["embedding"], MESH_NUMBERS)
    np.testing.assert_allclose(embedding[:, :52], matrix(rows["blendshapes"], 52), atol=1e-3)
    np.testing.assert_allclose(embedding[:, 55], rows["lip_area"].to_numpy(), rtol=1e-4)
    assert np.isfinite(embedding).all()
    assert not table["valence"].is_valid().to_numpy(zero_copy_only=False).any()
    assert not table["expression"].is_valid().to_numpy(zero_copy_only=False).any()
