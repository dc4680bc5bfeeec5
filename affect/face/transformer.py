"""The face's temporal model: a Transformer over the embeddings of a window's frames."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from affect.layers import AttentionLayer, Output, Projection, RegressionHead, sinusoids
from affect.settings import models


class FaceTransformer(nn.Module):
    """Valence and arousal of each frame from the face embeddings around it.

        x_0 = Drop(LN(W z + b));   x_n = Layer_n(x_(n-1), x_(n-1), P);   v, a = head(x_N)

    z are the embeddings of a window's frames, P the positions, which every layer adds anew (0 at the window's first
    frame), Layer the attention layer of :mod:`affect.layers` with one expert. There is no norm after the last layer.

    Source: paper (arXiv 2603.13056), temporal model of the face.
    Differs: 16 heads as the paper says; the authors' code has 8, which have the same parameters.
    """

    def __init__(self, settings: models.FaceTransformer, input_width: int) -> None:
        """Start the weights.

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
        """Predict every frame of a batch of windows.

        Args:
            x: face embeddings.
            padding: true for frames that only fill the window; nothing attends to them.

        Returns:
            Prediction and embedding of each frame.
        """
        x = self.project(x)[None]  # (1, B, T, H)
        positions = sinusoids(x.shape[2], like=x)  # (T, H)
        for layer in self.layers:
            x = layer(x, x, positions, padding[None])
        return self.head(x[0])
