"""The vision-language model at its true size with random weights: speed, obstacles to it, and a GPU without room.

On a CPU the model is small, see :func:`benchmarks.behavior._checkpoint`.
"""

import contextlib
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

from affect.settings.extraction import Behavior

from .. import behavior
from .book import Book
from .compare import difference_of_states, median_s
from .states import prepared_beside

SMALL_PICTURES = {"a": (64, 96), "b": (64, 96), "c": (96, 128)}
"""Height and width of pictures with ``--quick``."""


class Loaded(NamedTuple):
    """The loaded model and the segments that it is checked with.

    Args:
        folder: folder of the checkpoint.
        model: the Qwen.
        small: a micro-batch of small pictures.
        large: eight segments of large pictures.
        prompt: the neutral prompt.
        prompts: all prompts.
    """

    folder: Path
    model: Any
    small: Sequence[Any]
    large: Sequence[Any]
    prompt: list[str]
    prompts: list[str]


def vlm(book: Book, device: torch.device, *, quick: bool) -> None:
    """Loads the model once and runs all checks of it."""
    with contextlib.ExitStack() as held:
        if quick:
            held.enter_context(mock.patch.object(behavior, "SHOWN", SMALL_PICTURES))
        found: list[Loaded] = []
        book.check("load", lambda: found.append(load(book, held, device, quick=quick)))
        if not found:
            return
        it, cuda = found[0], device.type == "cuda"
        book.check("prefill", lambda: prefill(book, it, device))
        book.check("where the time goes", lambda: where_time_goes(book, it, device), 10)
        book.check("fed", lambda: fed(book, it, device, quick=quick), 12)
        book.check("prompts", lambda: prompts(book, it, device), 12)
        if cuda:  # at 720p even the small model takes minutes on a CPU
            book.check("stage", lambda: stage(book, it), 25)
            book.check("short of memory", lambda: short_of_memory(book, it), 15)
        book.check("variants", lambda: variants(book, it, device), 60 if cuda else 15)
        if cuda:
            book.note("memory at most", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def load(book: Book, held: contextlib.ExitStack, device: torch.device, *, quick: bool) -> Loaded:
    """Makes, writes and loads the checkpoint.

    Args:
        book: takes the rows.
        held: keeps the checkpoint's folder.
        device: device of the model.
        quick: whether micro-batches are small.
    """
    from affect.behavior.prompt import PROMPTS
    from affect.behavior.qwen import Qwen

    start = time.monotonic()
    folder = held.enter_context(behavior._checkpoint(device))
    made = time.monotonic()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    every = list(PROMPTS.values())
    model = Qwen(Behavior(weights=str(folder)), every, device.type)
    book.note("checkpoint made and written", made - start, "s")
    book.note("checkpoint loaded", time.monotonic() - made, "s")
    small, large = list(behavior.SHOWN.values())[1:]
    segments = behavior.random_segments([16] * (2 if quick else 8), *small)
    return Loaded(folder, model, segments, behavior.random_segments([16] * 8, *large), [PROMPTS["neutral"]], every)


@contextlib.contextmanager
def _loaded_model(it: Loaded, module: str) -> Iterator[None]:
    """Gives a benchmark the loaded model where it would make a checkpoint and load it.

    Args:
        it: the loaded model.
        module: module from which it gets ``Qwen``.
    """

    @contextlib.contextmanager
    def checkpoint(*_: object, **__: object) -> Iterator[Path]:
        yield it.folder

    with mock.patch.object(behavior, "_checkpoint", checkpoint), mock.patch(f"{module}.Qwen", lambda *_: it.model):
        yield


def prefill(book: Book, it: Loaded, device: torch.device) -> None:
    """Tokens per second by micro-batch, and the share of a large product's arithmetic at the largest common one."""
    with _loaded_model(it, "affect.behavior.qwen"):
        lines = book.lines("prefill", behavior.prefill)
    count = "8" if device.type == "cuda" else "4"
    for line in lines:
        match = re.search(r"prefill of (\S+) on \S+, (\d+) at once: .* (\d+)% of a large product", line)
        if match and match[2] == count:
            book.note(f"share of a large product, {match[1]}, {count} at once", float(match[3]), "%")


def where_time_goes(book: Book, it: Loaded, device: torch.device) -> None:
    """Time of a micro-batch and of its preparation; on a GPU its waits for the device and the kernels' kinds."""
    micro_batch = it.model.prepare(it.small, it.prompt)
    computed_s = median_s(lambda: it.model.states(micro_batch), device)
    prepared_s = median_s(lambda: it.model.prepare(it.small, it.prompt), device)
    book.note(f"states of {len(it.small)} segments", 1000 * computed_s, "ms")
    book.note("time to prepare them / to compute them", prepared_s / computed_s, most=0.8)
    if device.type != "cuda":
        return
    waits = _waits(it.model, micro_batch)
    book.note("waits of the host for the GPU in them", float(waits.total()), str(waits.most_common(8)))
    kinds, kernels = _kernels(it.model, micro_batch)
    words = ", ".join(f"{name} {took / 1000:.0f} ms" for name, took in kinds.items())
    book.note("share of that time in which the GPU works", kinds.total() / 1e6 / computed_s, words)
    longest = "; ".join(f"{name} {took / 1000:.1f} ms" for name, took in kernels.most_common(10))
    book.note("longest kernels", longest)


def _waits(model: Any, micro_batch: Any) -> Counter[str]:  # noqa: ANN401 -- a Qwen and its input
    """Number of synchronising operations by file and line."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            model.states(micro_batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(each.filename).name}:{each.lineno}" for each in seen if "synchroniz" in str(each.message)]
    return Counter(places)


def _kernels(model: Any, micro_batch: Any) -> tuple[Counter[str], Counter[str]]:  # noqa: ANN401
    """Microseconds of the GPU by kind of kernel, and by kernel."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
        model.states(micro_batch)
        torch.cuda.synchronize()
    kinds: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    for event in profiled.key_averages():
        took = int(getattr(event, "self_device_time_total", 0))
        if took <= 0 or event.device_type == torch.autograd.DeviceType.CPU:
            continue
        name = event.key.lower()
        kind = "products" if re.search("gemm|nvjet|cutlass|xmma|cublas", name) else "other"
        kinds["attention" if re.search("flash|fmha|attention|sdpa", name) else kind] += took
        kernels[event.key[:70]] += took
    return kinds, kernels


def fed(book: Book, it: Loaded, device: torch.device, *, quick: bool) -> None:
    """The model with its preparation in a thread beside it, as in extraction, against the model alone."""
    height, width = it.small[0].pictures.shape[1:3]
    batches = [behavior.random_segments([16] * len(it.small), height, width, seed) for seed in range(2 if quick else 5)]
    prepared = [it.model.prepare(batch, it.prompt) for batch in batches]
    alone_s = median_s(lambda: [it.model.states(each) for each in prepared], device, 1)
    fed_s = median_s(lambda: list(prepared_beside(it.model, batches, it.prompt)), device, 1)
    words = f"{alone_s:.2f} s and {fed_s:.2f} s"
    book.note("model alone / with its preparation beside it", alone_s / fed_s, words, least=None if quick else 0.85)


def prompts(book: Book, it: Loaded, device: torch.device) -> None:
    """Three prompts on one reading of the video: their time, and their states against those of each prompt alone."""
    one, three = (it.model.prepare(it.small, asked) for asked in (it.prompt, it.prompts))
    times = [median_s(lambda batch=batch: it.model.states(batch), device, 2) for batch in (three, one)]  # type: ignore[misc]
    book.note("three prompts / one", times[0] / times[1], "times as long")
    apart = [[it.model([segment], [prompt])[0][0] for prompt in it.prompts] for segment in it.small[:2]]
    together = it.model(it.small[:2], it.prompts)
    book.note("three prompts on one reading / apart", difference_of_states(together, apart), most=0.1)


def stage(book: Book, it: Loaded) -> None:
    """The behaviour stage with decoding."""
    import av  # noqa: F401 -- without it the check is left out

    with _loaded_model(it, "affect.behavior.clip"):
        book.lines("stage", partial(behavior.behavior, 32))


def variants(book: Book, it: Loaded, device: torch.device) -> None:
    """The model with torch.compile against the model without: time and states."""
    from affect.behavior.qwen import Qwen

    compiled = Qwen(Behavior(weights=str(it.folder), compile=True), it.prompts, device.type)
    micro_batch = it.model.prepare(it.small, it.prompt)
    start = time.monotonic()
    found = compiled.states(compiled.prepare(it.small, it.prompt))
    book.note("compiled layers: first micro-batch", time.monotonic() - start, "s")
    worst = difference_of_states(found, it.model.states(micro_batch))
    book.note("compiled layers / eager: states", worst, most=0.1)
    eager_s = median_s(lambda: it.model.states(micro_batch), device, 2)
    compiled_s = median_s(lambda: compiled.states(micro_batch), device, 2)
    book.note("compiled layers / eager", eager_s / compiled_s, "times as fast")


def short_of_memory(book: Book, it: Loaded) -> None:
    """A limit on this process' memory that eight large segments do not fit in: fewer at once, equal states."""
    base = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    whole = it.model(it.large, it.prompt)
    needed = torch.cuda.max_memory_allocated() - base
    book.note("memory of eight large segments, besides the weights", needed / 2**30, "GiB")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((base + 0.6 * needed) / total)
    try:
        start = time.monotonic()
        halves = it.model(it.large, it.prompt)
        took = time.monotonic() - start
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    at_once = sorted({states.micro_batch for answers in halves for states in answers})
    words = f"{at_once} of {len(it.large)}, {took:.1f} s"
    book.note("short of memory: segments at once", float(max(at_once)), words, most=7)
    book.note("short of memory: states", difference_of_states(halves, whole), most=0.1)
