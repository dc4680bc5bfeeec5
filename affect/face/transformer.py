"""Temporal model of the face: a Transformer over the face embeddings of a window of frames."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from affect.layers import AttentionLayer, Output, Projection, RegressionHead, sinusoids
from affect.settings import models


class FaceTransformer(nn.Module):
    """Predicts valence and arousal of each frame from the face embeddings of its window.

        x_0 = Drop(LN(W z + b));   x_n = Layer_n(x_(n-1), x_(n-1), P);   v, a = head(x_N)

    where
        z      face embeddings of the window, (T, D)
        P      sinusoidal positions, 0 at the window's first frame, added again in every layer
        Layer  :class:`affect.layers.AttentionLayer` with one expert
        head   :class:`affect.layers.RegressionHead`; there is no norm between it and the last layer

    Source: paper (arXiv 2603.13056), section 3.2; spec section 3.4.
    Differs: 16 heads, as in the paper; the authors' code has 8. The number of parameters is the same.
    """

    def __init__(self, settings: models.FaceTransformer, input_width: int) -> None:
        """Initialises the weights.

        Args:
            settings: sizes and dropout.
            input_width: D, width of an embedding.
        """
        super().__init__()
        width, dropout = settings.hidden, settings.dropout
        self.project = Projection(input_width, width, dropout)
        self.layers = nn.ModuleList(AttentionLayer(1, width, settings.heads, dropout) for _ in range(settings.layers))
        self.head = RegressionHead(width, width, dropout)

    def forward(self, x: Float[Tensor, "B T D"], padding: Bool[Tensor, "B T"]) -> Output:
        """Predicts every frame of a batch of windows.

        Args:
            x: face embeddings.
            padding: true for padded frames; they are masked as keys.

        Returns:
            Prediction and embedding of each frame.
        """
        x = self.project(x)[None]  # (1, B, T, H)
        positions = sinusoids(x.shape[2], like=x)  # (T, H)
        for layer in self.layers:
            x = layer(x, x, positions, padding[None])
        return self.head(x[0])
