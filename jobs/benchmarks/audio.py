"""Speed of audio: WavLM-Large with random weights, its training steps and their waveforms, decoding."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .measure import fastest, rate, rates, say_ratio, stepper

SEGMENT = 64_000
BATCH = 8
TRACKS, SEGMENTS = 12, 100


def _large(**settings: Any) -> Any:  # noqa: ANN401 -- transformers is imported late
    """The audio model on a random WavLM-Large, 315 million parameters."""
    from affect.audio.wavlm import WavlmRegressor
    from affect.learning.fit import keep_freed_memory
    from affect.settings.models import Wavlm

    keep_freed_memory()
    from transformers import WavLMConfig, WavLMModel

    large = WavLMConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_buckets=320,
        max_bucket_distance=800,
    )
    torch.manual_seed(0)
    return WavlmRegressor(Wavlm(**settings), WavLMModel(large))


def _voices(count: int, device: torch.device) -> Tensor:
    return 0.1 * torch.randn(count, SEGMENT, generator=torch.Generator().manual_seed(1)).to(device)


def wavlm() -> None:
    """Segments in batches / one by one, in float32 and in bfloat16, and with the attention of transformers."""
    from affect.audio.wavlm import Attention

    device = fastest()
    model = _large().eval().to(device)
    waves = _voices(BATCH, device)
    lengths = torch.full((BATCH,), SEGMENT, device=device)
    theirs = Attention.__mro__[1]

    def run(size: int, half: bool, attention: type) -> Callable[[], int]:
        def work() -> int:
            for layer in model.backbone.encoder.layers:
                layer.attention.__class__ = attention
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
                for start in range(0, BATCH, size):
                    model(waves[start : start + size], lengths[start : start + size])
            return BATCH

        return work

    works = [run(size, half, Attention) for half in (False, True) for size in (1, BATCH)]
    works += [run(BATCH, half, theirs) for half in (False, True)]
    single, batched, half_single, half_batched, plain, half_plain = rates(works, 2)
    name = f"wavlm on {device}, batches of {BATCH} in"
    say_ratio(f"{name} bfloat16", "segments", half_batched, "one by one in float32", single)
    say_ratio(f"{name} bfloat16", "segments", half_batched, "one by one", half_single)
    say_ratio(f"{name} float32", "segments", batched, "one by one", single)
    say_ratio(f"{name} bfloat16", "segments", half_batched, "with transformers' attention", half_plain)
    say_ratio(f"{name} float32", "segments", batched, "with transformers' attention", plain)
    print(f"wavlm on {device}: {4 * half_batched:.3g} s of sound a second in bfloat16")


def finetune() -> None:
    """Training steps on stored states / on waveforms, and the size of the states."""
    from affect.settings.models import Wavlm

    device = fastest()
    model = _large().to(device)
    waves, lengths = _voices(BATCH, device), torch.full((BATCH,), SEGMENT, device=device)
    half = device.type == "cuda"
    model.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        stored = model.trunk(waves, lengths).half()
    model.train()
    gold = torch.rand(BATCH, 4, 2, generator=torch.Generator().manual_seed(2)).to(device)
    trained = [p for p in model.parameters() if p.requires_grad]

    def step(x: Tensor) -> Callable[[], int]:
        return stepper(lambda: model(x, lengths).prediction, trained, gold, Wavlm().fit.loss, half=half)

    cached, full = rates([step(stored.float().clone()), step(waves)], 2)
    say_ratio(f"finetune on {device}, on stored states", "steps", cached, "on waveforms", full)
    mib = stored[0].numel() * stored.element_size() / 2**20
    print(f"finetune: {mib:.2f} MiB of states a segment, {mib * 27_000 * 2 / 1024:.0f} GiB for 30 h of video")


class _Timed:
    """A loader that measures how long the model waits for each batch, and how long it then computes, in seconds."""

    def __init__(self, loader: Any) -> None:  # noqa: ANN401
        self._loader = loader
        self.waited: list[float] = []
        self.computed: list[float] = []

    def __call__(self, task: Any, shares: Sequence[Any], device: torch.device) -> Iterator[Any]:  # noqa: ANN401
        stream = iter(self._loader(task, shares, device))
        while True:
            start = time.perf_counter()
            try:
                batch = next(stream)
            except StopIteration:
                return
            got = time.perf_counter()
            yield batch
            self.waited.append(got - start)
            self.computed.append(time.perf_counter() - got)


def waveforms() -> None:
    """Share of the time that fine-tuning waits for waveforms of Ray Data, and the rate of Ray Data alone."""
    from affect.audio.task import AudioTask
    from affect.learning.batches import Share
    from affect.pipeline.job import start_ray
    from affect.pipeline.stream import TrackLoader
    from affect.settings.models import Wavlm
    from affect.storage.store import Store
    from affect.tracks.tables import load_track

    start_ray()
    torch.set_num_threads(1)  # the other core reads waveforms
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        refs = [_speaker(number, store) for number in range(TRACKS)]
        task = AudioTask(Wavlm(), SEGMENT)
        tracks = [load_track(store, ref) for ref in refs]
        samples = [(track, window) for track in tracks for window in task.windows(track)]
        order = np.random.default_rng(0).permutation(len(samples))
        shares = [Share([samples[i] for i in part], 4) for part in np.array_split(order, len(order) // BATCH)]
        loader = TrackLoader("audio", {ref.name: ref for ref in refs}, store, "", 1.0)

        def read() -> int:
            return sum(len(batch.gold) for batch in loader(task, shares, torch.device("cpu")))

        print(f"waveforms: Ray Data alone delivers {rate(read, 2):.0f} segments a second, its start included")
        model = _large().to(device).train()
        timed = _Timed(loader)
        steps = 60 if device.type == "cuda" else 4
        for batch in timed(task, shares[:steps], device):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                prediction = model(**batch.inputs).prediction
            prediction.float().square().mean().backward()
            model.zero_grad(set_to_none=True)
        first, *waited = timed.waited
        share = sum(waited) / sum(waited + timed.computed[1:])
        print(
            f"waveforms on {device}: {share:.2%} of the time after the first batch is spent waiting; the first batch, "
            f"with Ray Data's start, took {first:.1f} s, a step takes {statistics.median(timed.computed):.2f} s"
        )


def _speaker(number: int, store: Any) -> Any:  # noqa: ANN401 -- a TrackRef
    """Writes a track of noise, all of it kept and annotated."""
    from affect.audio.part import AudioPart
    from affect.storage.extracted import Extracted
    from affect.tracks.synthetic import make_track
    from affect.tracks.tables import TrackRef, to_tables

    rng = np.random.default_rng(number)
    track = make_track(f"speaker{number}", 30 * 2 * (SEGMENTS + 1), rng)
    num = len(track.segments.ranges)
    waves = [rng.integers(-3000, 3000, SEGMENT, dtype=np.int16) for _ in range(num)]
    everything = np.ones(num, dtype=bool)
    sound = AudioPart(everything, everything, [""] * num, waves)
    tables = to_tables(replace(track, parts={"audio": sound}))
    keys: Any = {part: f"{track.name}/{part}.{'rows.' if part == 'waveforms' else ''}arrow" for part in tables}
    for part, key in keys.items():
        store.put(key, Extracted(tables[part]))
    return TrackRef(track.name, "train", track.video, track.person, keys, track.video)


def decode(minutes: int = 10) -> None:
    """Seconds of sound per second from a video with stereo AAC at 44.1 kHz, clip by clip as in extraction.

    Args:
        minutes: length of the video.
    """
    from affect.corpus import audio, video

    with tempfile.TemporaryDirectory() as folder:
        path, seconds = Path(folder) / "talk.mp4", 60 * minutes
        _talk(path, seconds)
        probe = video.probe(str(path), path.name)

        def clips() -> int:
            for start in range(0, seconds, 60):
                audio.decode(str(path), probe, float(start), min(float(seconds), start + 62.0))
            return seconds

        print(f"decode: {rate(clips):.0f} s of sound a second and core, from {minutes} min of 640 x 360 video with AAC")


def _talk(path: Path, seconds: int, fps: int = 25, hz: int = 44_100) -> None:
    """Writes a video of noise, with strongly compressed pictures."""
    import av

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (8, 360, 640, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        film = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "35"})
        film.width, film.height, film.pix_fmt = 640, 360, "yuv420p"
        sound = container.add_stream("aac", rate=hz, layout="stereo")
        for second in range(seconds):
            for number in range(fps):
                container.mux(film.encode(av.VideoFrame.from_ndarray(pictures[number % 8], format="rgb24")))
            noise = (0.1 * rng.standard_normal((2, hz))).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = hz, second * hz
            container.mux(sound.encode(frame))
        container.mux(film.encode())
        container.mux(sound.encode())
