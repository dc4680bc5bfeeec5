"""Counts how often the host would wait for a GPU, on a CPU."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

READS = ("item", "tolist", "__bool__", "__int__", "__index__", "__float__", "cpu", "nonzero", "masked_select")
READS += ("equal", "unique", "unique_consecutive", "argwhere")
INDEXES = ("__getitem__", "__setitem__")


class Waits(TorchFunctionMode):
    """Counts operations that need the values, or the number of values, of tensors that would be on a GPU.

    These are the given tensors, parameters, and whatever is computed from them on the GPU.

    Args:
        on_gpu: tensors that would be there.
    """

    def __init__(self, on_gpu: Any) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._held: dict[int, Tensor] = {}
        self._mark(on_gpu)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in _tensors((args, kwargs)) if self._is_there(value)]
        name = (resolve_name(function) or "").rpartition(".")[2]
        if tensors:
            by_mask = name in INDEXES and any(value.dtype == torch.bool for value in _tensors(args[1]))
            by_count = name == "repeat_interleave" and len(tensors) > 1 and "output_size" not in kwargs
            if name in READS or by_mask or by_count:
                self.counts[name] += 1
        output = function(*args, **kwargs)
        if tensors and name not in READS:
            self._mark(output)
        return output

    def _is_there(self, value: Tensor) -> bool:
        return isinstance(value, torch.nn.Parameter) or id(value) in self._held

    def _mark(self, values: Any) -> None:
        self._held |= {id(value): value for value in _tensors(values)}


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_leaves(values) if isinstance(value, Tensor))
