"""Layers that several models share: positions, the attention layer of the face and the experts, the regression head."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn


class Output(NamedTuple):
    """What a model of one modality says about each point of a window."""

    prediction: Float[Tensor, "B T 2"]
    """Valence and arousal."""
    embedding: Float[Tensor, "B T H"]
    """What the fusions read."""


class FusionOutput(NamedTuple):
    """What a fusion says about each frame of a window."""

    prediction: Float[Tensor, "B T 2"]
    """Valence and arousal."""
    embedding: Float[Tensor, "B T H"]
    """The head's hidden state."""
    gates: Float[Tensor, "B T E"]
    """Weight of each source: they sum to 1, or are all 0 where there is no evidence."""


def sinusoids(length: int, like: Float[Tensor, "*batch H"]) -> Float[Tensor, "{length} H"]:
    """Fixed positions of a sequence, counted in steps from 0: :func:`sinusoids_at`.

    Args:
        length: T, points of the sequence; position 0 is the window's first.
        like: any tensor of the width, device and type that is wanted; H is even.

    Returns:
        P.
    """
    return sinusoids_at(torch.arange(length, device=like.device), like)


def sinusoids_at(position: Shaped[Tensor, "*points"], like: Float[Tensor, "*batch H"]) -> Float[Tensor, "*points H"]:
    """Fixed positions of points anywhere.

        P[2i] = sin(t / 10000^(2i / H)),   P[2i + 1] = cos(t / 10000^(2i / H))

    Args:
        position: t of each point, in steps or in seconds.
        like: any tensor of the width and type that is wanted; H is even.

    Returns:
        P.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.5.
    """
    width = like.shape[-1]
    frequency = torch.exp(torch.arange(0, width, 2, device=position.device) * (-math.log(10_000.0) / width))
    angle = position[..., None] * frequency  # (..., H / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).to(like.dtype)  # (..., H)


def gated_softmax(scores: Float[Tensor, "*batch E"], allowed: Bool[Tensor, "*batch E"]) -> Float[Tensor, "*batch E"]:
    """Softmax over what is allowed, and 0 everywhere where nothing is; its gradient is finite in both cases.

    Args:
        scores: one score per source.
        allowed: true where a source may be used.

    Returns:
        Weights that sum to 1, or to 0 where nothing is allowed.
    """
    # The lowest finite number stands for -inf: a row of -inf would be NaN, forward and backward.
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return weights * allowed


def convolve_groups(convolution: Callable[[Tensor], Tensor], x: Tensor, kind: torch.dtype) -> Tensor:
    """Run a grouped convolution; on a CPU in its weights' type, whatever autocast asks for.

    oneDNN's grouped convolution in bfloat16 is wrong on processors with AMX: WavLM's positional one has a relative
    error of 1.1 there (torch 2.11 and 2.13). Elsewhere on a CPU half precision makes it no faster.

    Args:
        convolution: the layer.
        x: its input.
        kind: type of its weights.

    Returns:
        Its output, of type ``kind`` on a CPU.
    """
    if x.device.type != "cpu":
        return convolution(x)
    with torch.autocast("cpu", enabled=False):
        return convolution(x.to(kind))


class ExpertLinear(nn.Module):
    """E independent linear maps, one per expert: ``y_e = x_e W_e + b_e``."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        """Start each expert as ``nn.Linear`` does.

        Args:
            experts: E.
            inputs: width of x.
            outputs: width of y.
        """
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(experts, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(experts, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "E B T D"]) -> Float[Tensor, "E B T H"]:
        """Map each expert's points by its own weights."""
        y = torch.baddbmm(self.bias, x.flatten(1, 2), self.weight)  # (E, B * T, H)
        return y.unflatten(1, x.shape[1:3])  # (E, B, T, H)


class ExpertNorm(nn.Module):
    """E independent layer norms, one per expert: ``y_e = (x_e - mean) / std * w_e + b_e`` over the width."""

    def __init__(self, experts: int, width: int) -> None:
        """Start each expert as the identity scale.

        Args:
            experts: E.
            width: H.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.ones(experts, 1, 1, width))
        self.bias = nn.Parameter(torch.zeros(experts, 1, 1, width))

    def forward(self, x: Float[Tensor, "E B T H"]) -> Float[Tensor, "E B T H"]:
        """Normalise each point, then scale by its expert's weights."""
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)


def attend(
    q: Float[Tensor, "E B T H"],
    k: Float[Tensor, "E B S H"],
    v: Float[Tensor, "E B S H"],
    masked: Bool[Tensor, "E B S"],
    heads: int,
    dropout: float,
) -> Float[Tensor, "E B T H"]:
    """Scaled dot-product attention of every expert, window and head at once.

        softmax(q k^T / sqrt(H / heads)) v      per head; 0 where every key is masked

    Args:
        q: projected queries.
        k: projected keys.
        v: projected values.
        masked: true where a key may not be seen.
        heads: heads that the width is split into.
        dropout: probability that an attention weight is dropped.

    Returns:
        The heads' results, side by side.
    """
    experts = q.shape[0]
    # One batch axis of E * B: the fused kernels know only (batch, heads, points, width).
    q, k, v = (
        x.flatten(0, 1).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v)
    )  # (E * B, heads, T, H / heads)
    hidden = masked.flatten(0, 1)[:, None, None]  # (E * B, 1, 1, S)
    # A blind window sees everything, so that its softmax is finite, and its result is set to 0.
    blind = hidden.all(dim=-1, keepdim=True)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=~hidden | blind, dropout_p=dropout).masked_fill(blind, 0)
    return y.transpose(1, 2).flatten(2).unflatten(0, (experts, -1))  # (E, B, T, H)


class AttentionLayer(nn.Module):
    """The attention layer of the face Transformer and of the fusion's experts, for E experts at once.

        q = Drop(x + P),  k = Drop(c + P),  v = Drop(c + P)
        y = LN(q + Drop(W_o MHA(W_q q, W_k k, W_v v)))
        u = LN(y + Drop(W_2 Drop(GELU(W_1 y))))
        x <- x + u

    x is the stream, c its context (x itself in self-attention), P the positions; every W has a bias. The three
    dropouts of the first line are drawn separately. Each expert has weights of its own: the face is E = 1.

    Source: paper (arXiv 2603.13056), temporal model of the face; the fusion's experts are stacks of the same layer.
    Differs: the authors' code drops out the skip path and keeps the sub-layer's output whole; here the sub-layer's
        output is dropped, as is usual.
    """

    def __init__(self, experts: int, width: int, heads: int, dropout: float) -> None:
        """Start every expert's weights.

        Args:
            experts: E.
            width: H, a multiple of ``heads``.
            heads: attention heads.
            dropout: probability of every dropout of the layer, attention weights included.
        """
        super().__init__()
        self.heads = heads
        self.query = ExpertLinear(experts, width, width)
        self.key = ExpertLinear(experts, width, width)
        self.value = ExpertLinear(experts, width, width)
        self.out = ExpertLinear(experts, width, width)
        self.attention_norm = ExpertNorm(experts, width)
        self.expand = ExpertLinear(experts, width, width)
        self.contract = ExpertLinear(experts, width, width)
        self.feedforward_norm = ExpertNorm(experts, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "E B T H"],
        context: Float[Tensor, "E B T H"],
        positions: Float[Tensor, "T H"],
        masked: Bool[Tensor, "E B T"],
    ) -> Float[Tensor, "E B T H"]:
        """Add to each stream what it reads from its context.

        Args:
            x: the stream of each expert.
            context: what keys and values are made of.
            positions: P, of both.
            masked: true where a point of the context may not be seen.

        Returns:
            The stream after the layer.
        """
        drop = self.dropout
        q, k, v = drop(x + positions), drop(context + positions), drop(context + positions)
        p = drop.p if self.training else 0.0
        attended = attend(self.query(q), self.key(k), self.value(v), masked, self.heads, p)
        y = self.attention_norm(q + drop(self.out(attended)))
        u = self.feedforward_norm(y + drop(self.contract(drop(F.gelu(self.expand(y))))))
        return x + u


class Projection(nn.Sequential):
    """The way into a model's width: ``h = Drop(LN(W x + b))``."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        """Start the weights.

        Args:
            inputs: D, width of x.
            width: H, width of h.
            dropout: probability of the dropout.
        """
        super().__init__(nn.Linear(inputs, width), nn.LayerNorm(width), nn.Dropout(dropout))


class RegressionHead(nn.Module):
    """The way out of a model, to valence and arousal.

        e = GELU(LN(W_1 h + b_1)),   (v, a) = W_2 Drop(e) + b_2

    Source: paper (arXiv 2603.13056), temporal model of the face; e is the embedding that the fusions read.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        """Start the weights.

        Args:
            width: width of h.
            hidden: width of e.
            dropout: probability of the dropout.
        """
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU())
        self.dropout = nn.Dropout(dropout)
        self.predict = nn.Linear(hidden, 2)

    def forward(self, h: Float[Tensor, "B T H"]) -> Output:
        """Predict each point by itself."""
        embedding = self.embed(h)
        return Output(self.predict(self.dropout(embedding)), embedding)


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a module whose state has the same names and shapes.

    Raises:
        ValueError: names the first tensor that is missing, of another shape or not of the module.
    """
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    for name, shape in own.items():
        if name not in tensors:
            raise ValueError(f"tensor {name} {list(shape)} is missing")
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"tensor {name} is {list(tensors[name].shape)}, {list(shape)} is wanted")
    for name, value in tensors.items():
        if name not in own:
            raise ValueError(f"tensor {name} {list(value.shape)} does not belong to the model")
    module.load_state_dict(tensors)
