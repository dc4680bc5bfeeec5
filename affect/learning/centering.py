"""Person centring: values relative to the median of their track, which removes what is constant in a person.

Source: ours for learned embeddings; OpenFace (Baltrusaitis et al. 2015) subtracts a person's median before regression.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from affect.settings.names import Centering


def centred(
    values: Float[ndarray, "points D"], valid: Bool[ndarray, " points"], how: Centering
) -> Float[ndarray, "points E"]:
    """Values as they are, minus their median over the valid points, or both side by side (E = 2 D).

    Args:
        values: finite.
        valid: points with evidence of the person; without any, nothing is subtracted.
        how: ``none``, ``median`` or ``both``.
    """
    if how == "none":
        return values
    median = np.median(values[valid], axis=0) if valid.any() else np.zeros(values.shape[1])
    relative = (values - median).astype(values.dtype)
    return relative if how == "median" else np.concatenate([values, relative], axis=1)


def centred_width(width: int, how: Centering) -> int:
    """E, the width after :func:`centred`."""
    return 2 * width if how == "both" else width
