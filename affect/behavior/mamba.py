"""The behaviour's temporal model: selective state-space blocks over the vision-language states of segments."""

import math
import warnings
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from affect.layers import Output, Projection, RegressionHead, convolve_groups
from affect.settings import models

# Range of the step size that a block starts with, and its floor (mamba_ssm.Mamba's defaults).
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


def selective_scan(
    x: Float[Tensor, "B T H"],
    dt: Float[Tensor, "B T H"],
    A: Float[Tensor, "H N"],  # noqa: N803 -- the paper's letters
    B: Float[Tensor, "B T N"],  # noqa: N803
    C: Float[Tensor, "B T N"],  # noqa: N803
    D: Float[Tensor, " H"],  # noqa: N803
) -> Float[Tensor, "B T H"]:
    """The selective state space: a linear recurrence whose step and matrices depend on the input.

        h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t,   h_0 = 0
        y_t = C_t h_t + D x_t

    Args:
        x: input of each channel.
        dt: step size, > 0.
        A: decay of each channel's N states, < 0.
        B: how a step enters the states.
        C: how the states are read.
        D: the skip.

    Returns:
        y.

    Source: Mamba (arXiv 2312.00752), algorithm 2.
    Differs: the paper's authors' code decays by exp(-A) dt, which can grow without bound over a long sequence.
    """
    if x.is_cuda and x.dtype != torch.float64 and (kernel := _kernel()):
        return kernel(x.mT, dt.mT, A, B.mT, C.mT, D).mT
    x_t, dt_t, b_t, c_t = (value.transpose(0, 1) for value in (x, dt, B, C))  # (T, B, ...): a step is one block
    decay = torch.exp(dt_t[..., None] * A)  # (T, B, H, N)
    enters = ((dt_t * x_t)[..., None] * b_t[:, :, None]).contiguous()  # (T, B, H, N)
    h = _Recurrence.apply(decay, enters)
    return (h @ c_t[..., None])[..., 0].transpose(0, 1) + D * x


class _Recurrence(torch.autograd.Function):
    """``h_t = a_t h_(t-1) + b_t``, with a backward that is as long as its forward.

        dL/db_t = g_t = dL/dh_t + a_(t+1) g_(t+1),   dL/da_t = g_t h_(t-1)

    At 400 points it is 4 times as fast as torch's own record of the same steps, and 24 times as one that indexes its
    tensors step by step, whose backward is quadratic in T.
    """

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        """The states."""
        h = torch.empty_like(b)
        h[0] = b[0]
        for t in range(1, len(h)):
            torch.addcmul(b[t], a[t], h[t - 1], out=h[t])
        return h

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ANN401 -- torch's own
        """Keep what the gradient needs."""
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """The gradients of a and b."""
        a, h = ctx.saved_tensors
        g = grad_h.clone(memory_format=torch.contiguous_format)
        for t in range(len(g) - 1, 0, -1):
            g[t - 1].addcmul_(a[t], g[t])
        grad_a = torch.empty_like(a)
        grad_a[0] = 0
        torch.mul(g[1:], h[:-1], out=grad_a[1:])
        return grad_a, g


@cache
def _kernel() -> Any:  # noqa: ANN401 -- mamba-ssm's own function
    """mamba-ssm's scan for CUDA; None where it is not installed."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        warnings.warn(
            f"mamba-ssm cannot be imported ({error}), so the GPU scans step by step, which is slow; "
            "pip install --no-build-isolation -e '.[gpu]' builds it",
            stacklevel=2,
        )
        return None
    return selective_scan_fn


class MambaBlock(nn.Module):
    """One selective state-space block, with its norm and its residual.

        x, z = W_in RMSNorm(u);   x = SiLU(causal depthwise conv(x))
        r, B, C = W_x x;   dt = softplus(W_dt r + b_dt)
        u <- u + Drop(W_out (scan(x, dt, A, B, C, D) * SiLU(z))),   A = -exp(A_log)

    r has rank ceil(H / 16), B and C have N numbers each. The parameters are named as in ``mamba_ssm.Mamba``.

    Source: Mamba (arXiv 2312.00752), figure 3 and section 3.6, with expand = 1.
    """

    def __init__(self, settings: models.Mamba) -> None:
        """Start the weights as mamba-ssm does: A_log = log(1 .. N), dt log-uniform over its range.

        Args:
            settings: sizes and dropout.
        """
        super().__init__()
        width, state = settings.hidden, settings.state
        self.rank, self.state = math.ceil(width / 16), state
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.in_proj = nn.Linear(width, 2 * width, bias=False)
        # mamba-ssm's fused block would call causal-conv1d, whose kernel stops at width 4; torch's has no such limit.
        self.conv1d = nn.Conv1d(width, width, settings.kernel, groups=width, padding=settings.kernel - 1)
        self.x_proj = nn.Linear(width, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, width)
        self.A_log = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(width, 1))
        self.D = nn.Parameter(torch.ones(width))
        self.out_proj = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(settings.dropout)
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        dt = torch.empty(width).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp().clamp(min=DT_FLOOR)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of it is dt

    def forward(self, u: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        """Add to each point what the points up to it say."""
        x, z = self.in_proj(self.norm(u)).chunk(2, dim=-1)
        x = convolve_groups(self.conv1d, x.mT, self.conv1d.weight.dtype)
        x = F.silu(x[..., : u.shape[1]].mT)  # the tail of the convolution would see the future
        r, b, c = self.x_proj(x).split([self.rank, self.state, self.state], dim=-1)
        dt = F.softplus(self.dt_proj(r))
        # Under autocast these are of several types, which the kernel refuses; the recurrence runs in the weights' own.
        x, dt, b, c = (value.to(self.A_log.dtype) for value in (x, dt, b, c))
        y = selective_scan(x, dt, -self.A_log.exp(), b, c, self.D)
        return u + self.dropout(self.out_proj(y * F.silu(z)))


class Mamba(nn.Module):
    """Valence and arousal of each segment from the vision-language states up to it.

        u_0 = Drop(LN(W s + b));   u_n = Block_n(u_(n-1));   h = RMSNorm(u_N);   v, a = head(h)

    s are the states of a window's segments, or of their half seconds; h is the embedding.

    Source: paper (arXiv 2603.13056), temporal model of the behaviour.
    Differs: the blocks are Mamba's own (see :func:`selective_scan`); vision-only behaviour drops out .1.
    """

    def __init__(self, settings: models.Mamba, input_width: int) -> None:
        """Start the weights.

        Args:
            settings: sizes and dropout.
            input_width: D, width of a state.
        """
        super().__init__()
        self.project = Projection(input_width, settings.hidden, settings.dropout)
        self.blocks = nn.ModuleList(MambaBlock(settings) for _ in range(settings.layers))
        self.norm = nn.RMSNorm(settings.hidden, eps=1e-5)
        self.head = RegressionHead(settings.hidden, settings.head_hidden, settings.head_dropout)

    def forward(self, x: Float[Tensor, "B T D"], padding: Bool[Tensor, "B T"]) -> Output:
        """Predict every segment of a batch of windows.

        Args:
            x: states of the segments.
            padding: true for segments that only fill the window. They stand at its end: a block looks back only, so
                they reach no other segment.

        Returns:
            Prediction and embedding of each segment.
        """
        # The stream that the blocks add to is as wide as the weights under autocast too, as in mamba-ssm.
        u = self.project(x.masked_fill(padding[..., None], 0)).to(self.norm.weight.dtype)  # (B, T, H)
        for block in self.blocks:
            u = block(u)
        h = self.norm(u)
        return Output(self.head(h).prediction, h)
