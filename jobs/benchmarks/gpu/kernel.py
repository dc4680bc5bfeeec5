"""mamba-ssm's scan: built where its source is at hand, compared with the recurrence in float64, and trained with."""

import importlib
import importlib.util
import os
import shutil
import sys
import tarfile
import tempfile
import time
import warnings
from pathlib import Path

import torch

from .. import behavior
from .book import Book
from .compare import difference
from .models import cases, parity
from .training import learns, tasks

SHAPES = (
    (3, 1, 16, 8),
    (3, 2, 16, 8),
    (8, 16, 256, 8),
    (8, 128, 256, 8),
    (2, 400, 64, 16),
    (1, 2049, 32, 4),
    (1, 5000, 16, 8),
)
"""Windows, points, channels and states of the scans that are compared."""
FLAGS = (
    "-O3 -std=c++17 --expt-relaxed-constexpr --expt-extended-lambda --use_fast_math "
    "-U__CUDA_NO_HALF_OPERATORS__ -U__CUDA_NO_HALF_CONVERSIONS__ -U__CUDA_NO_BFLOAT16_OPERATORS__ "
    "-U__CUDA_NO_BFLOAT16_CONVERSIONS__ -U__CUDA_NO_BFLOAT162_OPERATORS__ -U__CUDA_NO_BFLOAT162_CONVERSIONS__"
)
"""nvcc's flags in mamba-ssm's own build."""


def sdist_to_build() -> Path | None:
    """mamba-ssm's sdist ``.whl/mamba_ssm-*.tar.gz``; None without one or nvcc, or if the scan is installed."""
    if importlib.util.find_spec("selective_scan_cuda") or not shutil.which("nvcc"):
        return None
    return next(iter(sorted(Path(".whl").glob("mamba_ssm-*.tar.gz"))), None)


def build(sdist: Path) -> float:
    """Compiles mamba-ssm's scan for this GPU alone and makes it importable in this process.

    Returns:
        Seconds that it took.
    """
    from torch.utils import cpp_extension

    start, folder = time.monotonic(), Path(tempfile.mkdtemp())
    with tarfile.open(sdist) as content:
        content.extractall(folder, filter="data")
    [top] = [path for path in folder.iterdir() if path.is_dir()]
    source = top / "csrc" / "selective_scan"
    os.environ.setdefault("MAX_JOBS", str(min(16, os.cpu_count() or 1)))
    sys.modules["selective_scan_cuda"] = cpp_extension.load(
        "selective_scan_cuda",
        sorted(str(path) for path in source.iterdir() if path.suffix in (".cpp", ".cu")),
        extra_include_paths=[str(source)],
        extra_cflags=["-O3", "-std=c++17"],
        extra_cuda_cflags=FLAGS.split(),
    )
    sys.path.insert(0, str(top))
    importlib.invalidate_caches()
    return time.monotonic() - start


def kernel(book: Book, device: torch.device, *, quick: bool) -> None:
    """Checks the kernel where it can be imported, after its build if need be."""
    from affect.behavior import mamba

    if device.type == "cuda" and (sdist := sdist_to_build()):
        book.check("build", lambda: book.note("mamba-ssm's scan built for this GPU", build(sdist), "s"))
    try:
        importlib.import_module("selective_scan_cuda")
        importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except ImportError as error:
        book.leave_out(
            "kernel", f"mamba-ssm cannot be imported ({error}): pip install --no-build-isolation -e '.[gpu]' builds it"
        )
        return
    mamba._kernel.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        book.note("kernel is used", float(mamba._kernel() is not None), least=1)
    if device.type != "cuda":
        return
    book.check("scan", lambda: scans(book, device))
    folder = Path(tempfile.mkdtemp())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for case in cases(folder, quick=quick):
        if case.name == "mamba":
            with_kernel = case._replace(name="mamba with the kernel")
            book.check(with_kernel.name, lambda case=with_kernel: parity(book, case, device))  # type: ignore[misc]
    torch.backends.cudnn.allow_tf32 = True  # torch's default
    make = tasks(folder, quick=quick)["mamba"]
    book.check("training", lambda: learns(book, "mamba with the kernel", make, device))
    book.check("speed", lambda: book.lines("scan", behavior.scan), 5)


def scans(book: Book, device: torch.device) -> None:
    """Forward and gradients of the kernel against the recurrence in float64 on the CPU."""
    from affect.behavior.mamba import selective_scan

    for batch, length, width, state in SHAPES:
        inputs = behavior.scan_inputs(length, batch, width, state)
        gradient = torch.randn(batch, length, width, generator=torch.Generator().manual_seed(0))
        plain = [value.double().requires_grad_() for value in inputs]
        ours = [value.to(device).requires_grad_() for value in inputs]
        expected, found = selective_scan(*plain), selective_scan(*ours)
        expected.backward(gradient.double())
        found.backward(gradient.to(device))
        worst = max(difference(one.grad, other.grad) for one, other in zip(ours, plain, strict=True))
        book.note(f"scan of {length} points: forward", difference(found, expected), most=1e-4)
        book.note(f"scan of {length} points: gradients, worst", worst, most=1e-3)
