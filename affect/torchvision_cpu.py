"""Makes PyPI's torchvision importable with a CPU-only torch.

PyPI has only CUDA builds of torchvision for Linux. Their ``_C.so`` does not load with ``torch==X+cpu``; then
``import torchvision`` fails with "operator torchvision::nms does not exist", and so do transformers' models and
EfficientNet. torchvision registers two operators unconditionally; defining both makes the import succeed. Transforms
and models need no compiled operator. Detectors need ``nms``, for which there is a kernel in plain torch.
"""

import importlib.machinery
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

_libraries: list[Any] = []  # a garbage-collected torch.library.Library removes its registrations


def _nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:  # noqa: ANN401 -- torch is not imported yet
    """Non-maximum suppression as ``torchvision.ops.nms``: indices of the kept boxes (n, 4), highest score first."""
    import torch

    order = scores.argsort(descending=True, stable=True)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low, high = torch.maximum(boxes[best, :2], boxes[order, :2]), torch.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        order = order[shared <= iou_threshold * (area[best] + area[order] - shared)]
    return torch.stack(kept) if kept else order


def _extension_fails(origin: str) -> bool:
    """Whether torch is a CPU build with which torchvision's compiled extension does not load."""
    import torch

    if torch.version.cuda is not None or torch.version.hip is not None:
        return False
    try:
        for extension in Path(origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(extension))  # torchvision may load the same file again
    except OSError:
        return True
    return False


class _Finder:
    """Import hook that defines the operators before the first import of torchvision, by any module."""

    @staticmethod
    def find_spec(
        name: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec is None or spec.loader is None or spec.origin is None:
            return spec
        origin, run = spec.origin, spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            replaced = not _libraries and _extension_fails(origin)
            if replaced:
                import torch

                library = torch.library.Library("torchvision", "FRAGMENT")
                library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                library.impl("nms", _nms, "CPU")
                _libraries.append(library)
            run(module)
            if replaced:
                sys.modules["torchvision.ops.boxes"]._assert_has_ops = lambda: None  # type: ignore[attr-defined]

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Installs the import hook once; it has no effect if torchvision's compiled extension loads."""
    if _Finder not in sys.meta_path and "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _Finder)
