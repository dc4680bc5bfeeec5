"""Temporal model of the behaviour: selective state-space blocks (Mamba) over the hidden states of segments."""

import math
import warnings
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from affect.layers import Output, Projection, RegressionHead, grouped_convolution
from affect.settings import models

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4
"""Range of the initial step sizes, and their floor: the defaults of ``mamba_ssm.Mamba``."""


def selective_scan(
    x: Float[Tensor, "B T H"],
    dt: Float[Tensor, "B T H"],
    A: Float[Tensor, "H N"],  # noqa: N803 -- the paper's letters
    B: Float[Tensor, "B T N"],  # noqa: N803
    C: Float[Tensor, "B T N"],  # noqa: N803
    D: Float[Tensor, " H"],  # noqa: N803
) -> Float[Tensor, "B T H"]:
    """Selective state space: a linear recurrence whose step size and matrices depend on the input.

        h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t,   h_0 = 0
        y_t = C_t h_t + D x_t

    Args:
        x: input of each channel.
        dt: step size, > 0.
        A: decay rate of each channel's N states, < 0.
        B: input matrix of each point.
        C: output matrix of each point.
        D: skip connection of each channel.

    Returns:
        y.

    Source: Mamba (arXiv 2312.00752), algorithm 2; spec section 4.4.
    Differs: the code of arXiv 2603.13056 uses exp(-A) dt as decay, which can grow without bound on long sequences.
    """
    if x.is_cuda and x.dtype != torch.float64 and (kernel := _kernel()):
        return kernel(x.mT, dt.mT, A, B.mT, C.mT, D).mT
    x_t, dt_t, b_t, c_t = (value.transpose(0, 1) for value in (x, dt, B, C))  # (T, B, ...): a step is contiguous
    decay = torch.exp(dt_t[..., None] * A)  # (T, B, H, N)
    inputs = ((dt_t * x_t)[..., None] * b_t[:, :, None]).contiguous()  # (T, B, H, N)
    h = _Recurrence.apply(decay, inputs)
    return (h @ c_t[..., None])[..., 0].transpose(0, 1) + D * x


class _Recurrence(torch.autograd.Function):
    """Linear recurrence with a backward pass in O(T).

        h_t = a_t h_(t-1) + b_t;   dL/db_t = g_t = dL/dh_t + a_(t+1) g_(t+1);   dL/da_t = g_t h_(t-1)

    At T = 400 it is 4 times as fast as autograd over the same steps, and 24 times as fast as autograd over indexed
    steps, whose backward pass is quadratic in T.
    """

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        """Computes the states h."""
        h = torch.empty_like(b)
        h[0] = b[0]
        for t in range(1, len(h)):
            torch.addcmul(b[t], a[t], h[t - 1], out=h[t])
        return h

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ANN401 -- torch's own
        """Saves a and h for the backward pass."""
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Computes the gradients of a and b."""
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
    """Returns mamba-ssm's CUDA scan, or None with a warning if it cannot be imported."""
    try:
        import selective_scan_cuda  # noqa: F401 -- without it a version may import, and fail when called
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
    """One pre-norm residual block around the selective state space.

        x, z = W_in RMSNorm(u);   x = SiLU(causal depthwise conv(x))
        r, B, C = W_x x;   dt = softplus(W_dt r + b_dt)
        u <- u + Drop(W_out (scan(x, dt, A, B, C, D) * SiLU(z))),   A = -exp(A_log)

    where
        u     stream of the model, (T, H)
        r     low-rank step size, rank ceil(H / 16)
        B, C  input and output matrices, N numbers per point
        scan  :func:`selective_scan`

    Parameters are named as in ``mamba_ssm.Mamba``.

    Source: Mamba (arXiv 2312.00752), figure 3 and section 3.6, with expand = 1; spec section 4.4.
    """

    def __init__(self, settings: models.Mamba) -> None:
        """Initialises the weights as mamba-ssm does: A_log = log(1 .. N), dt log-uniform in its range.

        Args:
            settings: sizes and dropout.
        """
        super().__init__()
        width, state = settings.hidden, settings.state
        self.rank, self.state = math.ceil(width / 16), state
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.in_proj = nn.Linear(width, 2 * width, bias=False)
        # mamba-ssm's fused block calls causal-conv1d, which is limited to width 4; torch's convolution is not.
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
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus

    def forward(self, u: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        """Adds to each point an output that depends on the points up to it (causal)."""
        x, z = self.in_proj(self.norm(u)).chunk(2, dim=-1)
        x = grouped_convolution(self.conv1d, x.mT, self.conv1d.weight.dtype)
        x = F.silu(x[..., : u.shape[1]].mT)  # drops the convolution's tail: the block is causal
        r, b, c = self.x_proj(x).split([self.rank, self.state, self.state], dim=-1)
        dt = F.softplus(self.dt_proj(r))
        # Autocast gives these several dtypes, which the kernel refuses; the recurrence runs in the weights' dtype.
        x, dt, b, c = (value.to(self.A_log.dtype) for value in (x, dt, b, c))
        y = selective_scan(x, dt, -self.A_log.exp(), b, c, self.D)
        return u + self.dropout(self.out_proj(y * F.silu(z)))


class Mamba(nn.Module):
    """Predicts valence and arousal of each segment from the hidden states of the segments up to it.

        u_0 = Drop(LN(W s + b));   u_n = Block_n(u_(n-1));   h = RMSNorm(u_N);   v, a = head(h)

    where
        s      hidden states of a window's segments, or of their half seconds, (T, D)
        Block  :class:`MambaBlock`
        h      embedding that the fusions read, (T, H)
        head   :class:`affect.layers.RegressionHead`

    Source: paper (arXiv 2603.13056), section 3.3; spec section 4.4.
    Differs: the authors' blocks compute another decay, see :func:`selective_scan`; dropout is .1 for the vision-only
        model.
    """

    def __init__(self, settings: models.Mamba, input_width: int) -> None:
        """Initialises the weights.

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
        """Predicts every segment of a batch of windows.

        Args:
            x: hidden states of the segments.
            padding: true for padded segments. They are at a window's end and blocks are causal, so they affect no other
                segment.

        Returns:
            Prediction and embedding of each segment.
        """
        # The residual stream has the weights' dtype under autocast too, as in mamba-ssm.
        u = self.project(x.masked_fill(padding[..., None], 0)).to(self.norm.weight.dtype)  # (B, T, H)
        for block in self.blocks:
            u = block(u)
        h = self.norm(u)
        return Output(self.head(h).prediction, h)
