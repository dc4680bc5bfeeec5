"""Speed of behaviour: states of segments, their rating, the selective scan, the pictures of segments."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .measure import fastest, rate, rates, resident_mib, say_ratio

SEGMENTS = 52_887
"""Number of segments of Aff-Wild2."""
TRUE_TEXT = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
}
TRUE_VISION = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [5, 11, 17],
}
# The same shares of language model, logits and encoder in a token's arithmetic, a three-hundredth of the size.
SMALL_TEXT = {
    "hidden_size": 256,
    "intermediate_size": 976,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 5_120,
}
SMALL_VISION = {
    "depth": 4,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_heads": 4,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [1, 2, 3],
}
# The true widths with a twelfth of both models' layers. Vocabulary and deepstack are cut: beside so few layers they
# would take a larger share than at the true depth.
THIN_TEXT = {**TRUE_TEXT, "num_hidden_layers": 3, "vocab_size": 5_120}
THIN_VISION = {**TRUE_VISION, "depth": 2, "deepstack_visual_indexes": []}
SHOWN = {"the demo's pictures": (96, 128), "360p": (352, 640), "720p": (640, 1152)}
"""Height and width of the pictures that the model gets."""


@contextlib.contextmanager
def _checkpoint(device: torch.device, *, thin: bool = False) -> Iterator[Path]:
    """A random Qwen3-VL: of the true 4B shape on a GPU, small on a CPU, or of true widths and a twelfth of the layers.

    Args:
        device: device that makes the weights.
        thin: whether the model on a CPU has the true widths.
    """
    from transformers import Qwen3VLForConditionalGeneration

    from affect.console import tiny

    cuda = device.type == "cuda"
    on_cpu = (THIN_TEXT, THIN_VISION) if thin else (SMALL_TEXT, SMALL_VISION)
    text, vision = (TRUE_TEXT, TRUE_VISION) if cuda else on_cpu
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if cuda else torch.float32)
    with device:
        model = Qwen3VLForConditionalGeneration(tiny.qwen_config(text, vision)).eval()
    torch.set_default_dtype(torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        tiny.save_qwen(model, Path(folder))
        print(f"Qwen3-VL of {sum(p.numel() for p in model.parameters()):,} random parameters on {device}", flush=True)
        del model
        yield Path(folder)


def random_segments(counts: Sequence[int], height: int, width: int, seed: int = 0) -> list[Any]:
    """Segments of noise.

    Args:
        counts: pictures of each segment, four a second.
        height: of a picture in pixels.
        width: of a picture in pixels.
        seed: of the noise.
    """
    from affect.behavior.checkpoint import SegmentFrames

    rng = np.random.default_rng(seed)
    shape = (height, width, 3)
    return [SegmentFrames(rng.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) / 4) for n in counts]


def qwen(count: int = 4) -> None:
    """States of segments, against the authors' way of computing them.

    Args:
        count: segments of a batch.
    """
    from transformers import GenerationConfig

    from affect.behavior.checkpoint import Checkpoint
    from affect.behavior.prompt import PROMPTS
    from affect.behavior.qwen import Qwen
    from affect.settings.extraction import Behavior

    device = fastest()
    with _checkpoint(device) as folder:
        settings = Behavior(weights=str(folder))
        ours, theirs = (
            Qwen(settings, list(PROMPTS.values())),
            Checkpoint(settings, list(PROMPTS.values()), max_new_tokens=100),
        )
        how = GenerationConfig(do_sample=False, max_new_tokens=100, min_new_tokens=100, pad_token_id=0)
        for name, size in list(SHOWN.items())[: 3 if device.type == "cuda" else 2]:
            segments = random_segments([16] * count, *size)

            def batched(segments: list[Any] = segments) -> int:
                ours(segments, [PROMPTS["neutral"]])
                return count

            def authors(segments: list[Any] = segments[:1]) -> int:
                """One by one: a text of 100 tokens, then all logits and all layers' states."""
                inputs = theirs.inputs(segments, [theirs.chat(PROMPTS["neutral"])])
                with torch.inference_mode():
                    theirs.model.generate(**inputs, generation_config=how)
                    output = theirs.model(**inputs, output_hidden_states=True)
                    output.logits.float().cpu(), output.hidden_states[-1][0, -1].float().cpu()
                return len(segments)

            mine, other = rates([batched, authors], 2)
            say_ratio(f"states of {name} on {device}", "segments", mine, "the authors' way", other)

            def shared(segments: list[Any] = segments) -> int:
                ours(segments, list(PROMPTS.values()))
                return count

            def apart(segments: list[Any] = segments) -> int:
                for prompt in PROMPTS.values():
                    ours(segments, [prompt])
                return count

            together, alone = rates([shared, apart], 2)
            say_ratio(f"three prompts of {name} on {device}", "segments", together, "a prefill for each", alone)


def prefill() -> None:
    """Tokens per second of the prefill by micro-batch, as a share of a large product's arithmetic, and its memory."""
    from affect.behavior.prompt import PROMPTS
    from affect.behavior.qwen import Qwen
    from affect.settings.extraction import Behavior

    device = fastest()
    cuda = device.type == "cuda"
    with _checkpoint(device) as folder:
        model = Qwen(Behavior(weights=str(folder)), list(PROMPTS.values()))
        ceiling = _matmul_rate(device)
        flops = _flops_per_token(model._model)
        for name, size in list(SHOWN.items())[1:]:
            for micro_batch in (1, 2, 4, 8, 16) if cuda else (1, 2, 4):
                prompted = model.prepare(random_segments([16] * micro_batch, *size), [PROMPTS["neutral"]])
                assert prompted.inputs
                tokens = prompted.inputs["input_ids"].numel()  # segments of one size: no padding
                if cuda:
                    torch.cuda.reset_peak_memory_stats()

                def run(prompted: Any = prompted, micro_batch: int = micro_batch) -> int:  # noqa: ANN401 -- a batch
                    model.states(prompted)
                    return micro_batch

                speed = rate(run, 2)
                per_s = speed * tokens / micro_batch
                memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else resident_mib("VmHWM") / 1024
                print(
                    f"prefill of {name} on {device}, {micro_batch} at once: {per_s:,.0f} tokens and {speed:.2f} "
                    f"segments a second, {per_s * flops / ceiling:.0%} of a large product's arithmetic, "
                    f"{memory:.1f} GiB at most, {SEGMENTS / speed / 3600:.2f} hours for {SEGMENTS:,} segments",
                    flush=True,
                )


def rating(count: int = 2) -> None:
    """States with the rating against states alone, at the true widths; on a CPU with a twelfth of the layers.

    Args:
        count: segments of a batch.
    """
    from affect.behavior.prompt import PROMPTS, QUESTIONS
    from affect.behavior.qwen import Qwen
    from affect.settings.extraction import Behavior

    def cut(text: str) -> str:
        """A quarter of a text: a letter is a token here, the true tokenizer joins about four."""
        return text[: len(text) // 4]

    device = fastest()
    valence, arousal = QUESTIONS["neutral"]
    prompt, questions = cut(PROMPTS["neutral"]), (cut(valence), cut(arousal))
    with _checkpoint(device, thin=True) as folder:
        settings = Behavior(weights=str(folder))
        rater, alone = Qwen(settings, [prompt], questions={prompt: questions}), Qwen(settings, [prompt])
        for name, size in list(SHOWN.items())[1 : 3 if device.type == "cuda" else 2]:
            batches = [model.prepare(random_segments([16] * count, *size), [prompt]) for model in (rater, alone)]
            inputs = batches[0].inputs
            assert inputs
            num = inputs["input_ids"].shape[1]
            asked = int(batches[0].questions[0].valid.sum())

            def rated(batch: Any = batches[0]) -> int:  # noqa: ANN401 -- a batch
                rater.states(batch)
                return count

            def silent(batch: Any = batches[1]) -> int:  # noqa: ANN401 -- a batch
                alone.states(batch)
                return count

            ours, theirs = rates([rated, silent], 3)
            print(f"{name}: {num} tokens of video and prompt, {asked} of both questions", flush=True)
            print(f"time of states and rating / states alone of {name} on {device}: {theirs / ours:.3f}", flush=True)
            say_ratio(f"states and rating of {name} on {device}", "segments", ours, "states alone", theirs)


def _flops_per_token(model: Any) -> float:  # noqa: ANN401 -- transformers' own class
    """Operations per token: twice the weights it passes, the language model's once, the vision encoder's four times."""
    layers = sum(p.numel() for p in model.language_model.layers.parameters())
    return 2.0 * (layers + 4 * sum(p.numel() for p in model.visual.blocks.parameters()))


def _matmul_rate(device: torch.device) -> float:
    """Operations per second of a large matrix product in the model's type."""
    size, kind = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a = torch.randn(size, size, device=device, dtype=kind)

    def product() -> int:
        for _ in range(4):
            a @ a
        return 4 * 2 * size**3

    return rate(product)


def scan() -> None:
    """Forward and backward of the selective scan (on a GPU its kernel) against a loop as in transformers."""
    from affect.behavior.mamba import selective_scan
    from affect.learning.fit import keep_freed_memory

    keep_freed_memory()
    device = fastest()
    for length in (16, 64, 400):
        inputs = [value.to(device).requires_grad_() for value in scan_inputs(length)]
        plain = [value.detach().double().requires_grad_() for value in inputs]

        def step(work: Callable[..., Tensor], inputs: list[Tensor] = inputs) -> Callable[[], int]:
            def once() -> int:
                work(*inputs).square().sum().backward()
                return 1

            return once

        ours, theirs = rates([step(selective_scan), step(_indexed_scan)])
        say_ratio(f"scan of {length} points on {device}", "steps", ours, "an indexed loop", theirs)
        expected = _indexed_scan(*plain)
        error = (selective_scan(*inputs).double() - expected).abs().max() / expected.abs().max()
        print(f"scan of {length} points on {device}: {error:.1e} from float64, relative to the largest", flush=True)


def scan_inputs(length: int, batch: int = 8, width: int = 256, state: int = 8) -> list[Tensor]:
    """Random inputs of a scan, by default of eight windows at the width of the multimodal recipe.

    Args:
        length: points of a window.
        batch: windows.
        width: channels.
        state: states of a channel.
    """
    generator = torch.Generator().manual_seed(length)
    x, noise = torch.randn(2, batch, length, width, generator=generator)
    b, c = torch.randn(2, batch, length, state, generator=generator)
    a, d = -torch.rand(width, state, generator=generator) * 8, torch.randn(width, generator=generator)
    return [x, torch.nn.functional.softplus(noise - 3), a, b, c, d]


def _indexed_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The recurrence over tensors (B, H, T, N) that are indexed at every step."""
    x, dt = x.mT, dt.mT
    decay = torch.exp(a[None, :, None] * dt[..., None])
    enters = dt[..., None] * b[:, None] * x[..., None]
    h, outputs = torch.zeros_like(decay[:, :, 0]), []
    for t in range(x.shape[2]):
        h = decay[:, :, t] * h + enters[:, :, t]
        outputs.append(torch.matmul(h, c[:, t, :, None])[:, :, 0])
    return (torch.stack(outputs, dim=-1) + x * d[None, :, None]).mT


def behavior(seconds: int = 16) -> None:
    """The behaviour stage on a 720p film with decoding, against its model alone, and the decoding of its pictures.

    Args:
        seconds: length of the film.
    """
    from affect.behavior.checkpoint import frame_size
    from affect.behavior.clip import BehaviorClip
    from affect.behavior.frames import segment_frames
    from affect.behavior.prompt import PROMPTS
    from affect.corpus import video
    from affect.corpus.clip import Clip
    from affect.corpus.film import TICKS, write_film
    from affect.settings.extraction import Behavior, Grid

    device = fastest()
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(0, 256, (45, 80, 3)), np.ones((20, 20, 1))).astype(np.uint8)[:720, :1280]
    frames = np.arange(30 * seconds)
    with _checkpoint(device) as folder, tempfile.TemporaryDirectory() as name:
        path = Path(name) / "film.mp4"
        write_film(path, (np.roll(scene, 3 * i, axis=1) for i in frames), frames * (TICKS // 30), None, 30)
        clip = Clip(str(path), video.probe(str(path), path.name), 0.0, float(seconds), Grid())
        settings = Behavior(weights=str(folder), micro_batch=4)
        stage = BehaviorClip(settings)
        prepared = [
            stage._model.prepare([pictures], [PROMPTS["neutral"]]) for _, pictures in segment_frames(clip, settings)
        ]

        def whole() -> int:
            return stage(clip).table.num_rows

        def model_alone() -> int:
            for prompted in prepared:
                stage._model.states(prompted)
            return len(prepared)

        def pictures() -> int:
            return sum(1 for _ in segment_frames(clip, settings))

        width, height = frame_size(clip.probe.width, clip.probe.height, settings)

        def every_picture() -> int:
            for _ in video.decode(clip.uri, clip.probe, *clip.frames, width=width, height=height):
                pass
            return len(clip.segments)

        mine, alone = rates([whole, model_alone], 2)
        say_ratio(f"behaviour stage on {device}", "segments", mine, "its model alone", alone)
        only, every = rates([pictures, every_picture], 2)
        say_ratio("pictures of 720p", "segments", only, "every frame scaled", every)
