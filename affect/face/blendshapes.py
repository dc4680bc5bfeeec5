"""The encoder without a network of its own: expression coefficients, head pose and lip area of the face mesh."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from affect.face.encoding import Encoding, FrameEncoder
from affect.face.mesh import MESH_NUMBERS, Mesh


class BlendshapeEncoder(FrameEncoder):
    """Embeds a face by its mesh.

        z = [blendshapes; pitch, yaw, roll; lip area]

    Blendshapes lie in [0, 1], angles are in radians, the area is in squared sides of the mesh's crop. There is no
    expression, valence or arousal.

    Source: MediaPipe's Face Landmarker task.
    """

    crop = None
    known = ()

    def __call__(self, crops: UInt8[ndarray, "n side side 3"], meshes: Sequence[Mesh | None] = ()) -> Encoding:
        """Embeds n faces; NaN for those without a mesh."""
        embedding = np.full((len(meshes), MESH_NUMBERS), np.nan, dtype=np.float32)
        for row, mesh in zip(embedding, meshes, strict=True):
            if mesh is not None:
                row[:] = [*mesh.blendshapes, *mesh.pose, mesh.lip_area]
        return Encoding(embedding)
