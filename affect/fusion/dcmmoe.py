"""DCMMOE: directed cross-modal mixture of experts, one expert for every ordered pair of modalities."""

from itertools import permutations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from affect.layers import AttentionLayer, FusionOutput, Projection, RegressionHead, gated_softmax, sinusoids
from affect.settings.models import Dcmmoe


class DCMMOE(nn.Module):
    """Predicts valence and arousal of each frame; every modality attends to every other one.

        h^m     = Drop(LN(W^m x^m))
        Z^(q,k) = u_N,   u_0 = h^q,   u_n = Layer^(q,k)_n(u_(n-1), h^k, P)        for every ordered pair q != k
        hbar    = mean over the valid m of h^m
        g       = W_g hbar + b_g
        z       = sum over (q,k) of softmax(g)_(q,k) Z^(q,k);     v, a = head(z)

    where
        x^m    embedding and prediction of modality m, (T, D_m)
        (q,k)  expert with query modality q and key modality k; E = M (M - 1) experts
        Layer  :class:`affect.layers.AttentionLayer`, with weights per expert; all experts are one batched computation
        P      sinusoidal positions
        g      gate logits, one per expert, (T, E)
        head   :class:`affect.layers.RegressionHead`

    Source: paper (arXiv 2603.13056), the directed cross-modal mixture-of-experts fusion; spec section 6. The authors'
        code does not contain this model.
    Differs: the paper does not define missing modalities. Here invalid and padded frames are masked as keys; expert
        (q,k) has weight 0 at a frame unless q and k are both valid there; hbar is the mean over valid modalities.
        Without an expert z = hbar; without a valid modality z = 0, and the caller fills the frame.
    """

    query_of: Tensor
    key_of: Tensor

    def __init__(self, settings: Dcmmoe, input_widths: dict[str, int]) -> None:
        """Initialises the weights.

        Args:
            settings: modalities, sizes and dropout.
            input_widths: D_m, width of each modality's x.
        """
        super().__init__()
        width, dropout = settings.hidden, settings.dropout
        self.modalities = settings.modalities
        # Expert e has queries from modality query_of[e], keys and values from modality key_of[e].
        query_of, key_of = zip(*permutations(range(len(self.modalities)), 2), strict=True)
        self.register_buffer("query_of", torch.tensor(query_of), persistent=False)
        self.register_buffer("key_of", torch.tensor(key_of), persistent=False)
        experts = len(query_of)
        self.project = nn.ModuleDict({m: Projection(input_widths[m], width, dropout) for m in self.modalities})
        self.layers = nn.ModuleList(
            AttentionLayer(experts, width, settings.heads, dropout) for _ in range(settings.layers)
        )
        self.gate = nn.Linear(width, experts)
        self.head = RegressionHead(width, width, dropout)

    def forward(
        self,
        features: dict[str, Float[Tensor, "B T _"]],
        valid: Bool[Tensor, "B M T"],
        padding: Bool[Tensor, "B T"],
    ) -> FusionOutput:
        """Fuses a batch of windows.

        Args:
            features: x^m of each modality; the widths differ.
            valid: true where a modality is valid, in the order of the settings' modalities.
            padding: true for padded frames.

        Returns:
            Prediction, embedding and expert weights of each frame. Experts are in the order of
            ``itertools.permutations(modalities, 2)``, each a pair (query, key).
        """
        evidence = (valid & ~padding[:, None]).transpose(0, 1)  # (M, B, T)
        h = torch.stack([self.project[m](features[m]) for m in self.modalities])  # (M, B, T, H)
        experts = self.run_experts(h, evidence)  # (E, B, T, H)
        num_valid = evidence.sum(dim=0)[..., None]  # (B, T, 1)
        hbar = (h * evidence[..., None]).sum(dim=0) / num_valid.clamp(min=1)  # (B, T, H)
        allowed = evidence[self.query_of] & evidence[self.key_of]  # (E, B, T)
        gates = gated_softmax(self.gate(hbar), allowed.movedim(0, -1))  # (B, T, E)
        z = torch.einsum("bte,ebth->bth", gates, experts)
        z = torch.where(allowed.any(dim=0)[..., None], z, hbar)
        prediction, embedding = self.head(z)
        return FusionOutput(prediction, embedding, gates)

    def run_experts(self, h: Float[Tensor, "M B T H"], evidence: Bool[Tensor, "M B T"]) -> Float[Tensor, "E B T H"]:
        """Runs every expert: cross-attention layers from its query modality to its key modality.

        Args:
            h: projected modalities h^m.
            evidence: true at valid frames that are not padding.

        Returns:
            Z^(q,k) of every expert.
        """
        u, context, masked = h[self.query_of], h[self.key_of], ~evidence[self.key_of]
        positions = sinusoids(h.shape[2], like=h)  # (T, H)
        for layer in self.layers:
            u = layer(u, context, positions, masked)
        return u
