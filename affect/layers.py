"""Layers of several models: sinusoidal positions, the attention layer, input projection, regression head."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn


class Output(NamedTuple):
    """Outputs of a modality's model for each point of a window."""

    prediction: Float[Tensor, "B T 2"]
    """Valence and arousal."""
    embedding: Float[Tensor, "B T H"]
    """Input of the fusions."""


class FusionOutput(NamedTuple):
    """Outputs of a fusion for each frame of a window."""

    prediction: Float[Tensor, "B T 2"]
    """Valence and arousal."""
    embedding: Float[Tensor, "B T H"]
    """Hidden state of the head."""
    gates: Float[Tensor, "B T E"]
    """Weight of each source; they sum to 1, or are all 0 at a frame without a valid source."""


def sinusoids(length: int, like: Float[Tensor, "*batch H"]) -> Float[Tensor, "{length} H"]:
    """Sinusoidal positions of the points 0 .. T - 1, see :func:`sinusoids_at`.

    Args:
        length: T; position 0 is the first point of the window.
        like: tensor that gives width H (even), device and dtype.

    Returns:
        P.
    """
    return sinusoids_at(torch.arange(length, device=like.device), like)


def sinusoids_at(position: Shaped[Tensor, "*points"], like: Float[Tensor, "*batch H"]) -> Float[Tensor, "*points H"]:
    """Sinusoidal positions of points at arbitrary times.

        P[2i] = sin(t / 10000^(2i / H)),   P[2i + 1] = cos(t / 10000^(2i / H))

    Args:
        position: t of each point, in steps or in seconds.
        like: tensor that gives width H (even) and dtype.

    Returns:
        P.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.5.
    """
    width = like.shape[-1]
    frequency = torch.exp(torch.arange(0, width, 2, device=position.device) * (-math.log(10_000.0) / width))
    angle = position[..., None] * frequency  # (..., H / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).to(like.dtype)  # (..., H)


def gated_softmax(scores: Float[Tensor, "*batch E"], allowed: Bool[Tensor, "*batch E"]) -> Float[Tensor, "*batch E"]:
    """Softmax over the allowed sources; 0 for the others. The gradient is finite even if no source is allowed.

    Args:
        scores: one score per source.
        allowed: true for sources that may be used.

    Returns:
        Weights that sum to 1, or are all 0 if no source is allowed.
    """
    # The lowest finite number replaces -inf: the softmax of a row of -inf is NaN, forward and backward.
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return weights * allowed


def grouped_convolution(convolution: Callable[[Tensor], Tensor], x: Tensor, kind: torch.dtype) -> Tensor:
    """Runs a grouped convolution; on a CPU in the dtype of its weights, without autocast.

    oneDNN's grouped convolution in bfloat16 is wrong on processors with AMX: that of WavLM's positions has a relative
    error of 1.1 there (torch 2.11 and 2.13). On other CPUs half precision makes it no faster.

    Args:
        convolution: the layer.
        x: its input.
        kind: dtype of its weights.

    Returns:
        Output of the layer, of dtype ``kind`` on a CPU.
    """
    if x.device.type != "cpu":
        return convolution(x)
    with torch.autocast("cpu", enabled=False):
        return convolution(x.to(kind))


class OutputLinear(nn.Linear):
    """Last linear layer of a model: ``y = W x + b`` in the dtype of its weights, under autocast too.

    bfloat16 has eight significant bits, which predictions in [-1, 1] would show as steps of 1/256.
    """

    def forward(self, input: Float[Tensor, "*points D"]) -> Float[Tensor, "*points outputs"]:
        """Computes y."""
        if input.is_meta:  # autocast does not know that device
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


class ExpertLinear(nn.Module):
    """E independent linear maps, one per expert: ``y_e = x_e W_e + b_e``."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        """Initialises each expert as ``nn.Linear`` does.

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
        """Maps each expert's points by that expert's weights."""
        y = torch.baddbmm(self.bias, x.flatten(1, 2), self.weight)  # (E, B * T, H)
        return y.unflatten(1, x.shape[1:3])  # (E, B, T, H)


class ExpertNorm(nn.Module):
    """E independent layer norms, one per expert: ``y_e = (x_e - mean) / std * w_e + b_e`` over the width."""

    def __init__(self, experts: int, width: int) -> None:
        """Initialises scale 1 and shift 0 for each expert.

        Args:
            experts: E.
            width: H.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.ones(experts, 1, 1, width))
        self.bias = nn.Parameter(torch.zeros(experts, 1, 1, width))

    def forward(self, x: Float[Tensor, "E B T H"]) -> Float[Tensor, "E B T H"]:
        """Normalises each point, then scales and shifts it by its expert's weights."""
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)


def attend(
    q: Float[Tensor, "E B T H"],
    k: Float[Tensor, "E B S H"],
    v: Float[Tensor, "E B S H"],
    masked: Bool[Tensor, "E B S"],
    heads: int,
    dropout: float,
) -> Float[Tensor, "E B T H"]:
    """Scaled dot-product attention of all experts, windows and heads in one call.

        y = softmax(q k^T / sqrt(H / heads)) v          per head; 0 if every key is masked

    Args:
        q: projected queries.
        k: projected keys.
        v: projected values.
        masked: true for keys that are not attended to.
        heads: number of heads; it divides H.
        dropout: dropout probability of the attention weights.

    Returns:
        Concatenated outputs of the heads.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.2.
    """
    experts = q.shape[0]
    # The fused kernels take (batch, heads, points, width), so experts and windows share the batch axis.
    q, k, v = (
        x.flatten(0, 1).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v)
    )  # (E * B, heads, T, H / heads)
    hidden = masked.flatten(0, 1)[:, None, None]  # (E * B, 1, 1, S)
    # A window with every key masked attends to all of them, so that its softmax is finite; its output is set to 0.
    empty = hidden.all(dim=-1, keepdim=True)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=~hidden | empty, dropout_p=dropout).masked_fill(empty, 0)
    return y.transpose(1, 2).flatten(2).unflatten(0, (experts, -1))  # (E, B, T, H)


class AttentionLayer(nn.Module):
    """Attention layer of the face Transformer (E = 1) and of DCMMOE's experts, for E experts in one computation.

        q = Drop(x + P),  k = Drop(c + P),  v = Drop(c + P)
        y = LN(q + Drop(W_o MHA(W_q q, W_k k, W_v v)))
        u = LN(y + Drop(W_2 Drop(GELU(W_1 y))))
        x <- x + u

    where
        x  stream, (T, H)
        c  context, (T, H); x itself in self-attention
        P  positions of both

    Every W has a bias. The three dropouts of the first line are drawn separately. Each expert has its own weights.

    Source: paper (arXiv 2603.13056), section 3.2; spec sections 3.4 and 6.
    Differs: the authors' code applies dropout to the skip path; here it is applied to the sub-layer's output, as usual.
    """

    def __init__(self, experts: int, width: int, heads: int, dropout: float) -> None:
        """Initialises every expert's weights.

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
        """Adds the attended context to each stream.

        Args:
            x: stream of each expert.
            context: input of keys and values.
            positions: P, of stream and context.
            masked: true for points of the context that are not attended to.

        Returns:
            Stream after the layer.
        """
        drop = self.dropout
        q, k, v = drop(x + positions), drop(context + positions), drop(context + positions)
        p = drop.p if self.training else 0.0
        attended = attend(self.query(q), self.key(k), self.value(v), masked, self.heads, p)
        y = self.attention_norm(q + drop(self.out(attended)))
        u = self.feedforward_norm(y + drop(self.contract(drop(F.gelu(self.expand(y))))))
        return x + u


class Projection(nn.Sequential):
    """Projects inputs to a model's width: ``h = Drop(LN(W x + b))``."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        """Initialises the weights.

        Args:
            inputs: D, width of x.
            width: H, width of h.
            dropout: probability of the dropout.
        """
        super().__init__(nn.Linear(inputs, width), nn.LayerNorm(width), nn.Dropout(dropout))


class RegressionHead(nn.Module):
    """Regresses valence and arousal of each point.

        e = GELU(LN(W_1 h + b_1));   v, a = W_2 Drop(e) + b_2

    where h is the model's last state and e the embedding that the fusions read.

    Source: paper (arXiv 2603.13056), section 3.2; spec section 3.4.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        """Initialises the weights.

        Args:
            width: width of h.
            hidden: width of e.
            dropout: probability of the dropout.
        """
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU())
        self.dropout = nn.Dropout(dropout)
        self.predict = OutputLinear(hidden, 2)

    def forward(self, h: Float[Tensor, "B T H"]) -> Output:
        """Predicts each point independently."""
        embedding = self.embed(h)
        return Output(self.predict(self.dropout(embedding)), embedding)


def load_state(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads tensors into a module whose state dict has exactly these names and shapes.

    Raises:
        ValueError: a tensor is missing, has another shape, or is not the module's; names the first one.
    """
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"tensor {name} {list(shape)} is missing")
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"tensor {name} is {list(tensors[name].shape)}, {list(shape)} is wanted")
    for name, value in tensors.items():
        if name not in shapes:
            raise ValueError(f"tensor {name} {list(value.shape)} does not belong to the model")
    module.load_state_dict(tensors)
