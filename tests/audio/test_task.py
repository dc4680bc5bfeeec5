"""How WavLM is fed, and how its blocks become frames: where labels end early, too."""

from dataclasses import replace

import numpy as np
import pytest
from numpy import ndarray

from affect.audio.part import AudioPart
from affect.audio.task import AudioTask
from affect.corpus.track import Track
from affect.learning.batches import Outputs
from affect.settings.models import Wavlm
from affect.tracks.synthetic import make_track

TASK = AudioTask(Wavlm(hidden=1), 64_000)


def track_of(num_frames: int, fps: float) -> Track:
    made = make_track("a", num_frames, np.random.default_rng(0), fps=fps, width=2)
    heard = np.ones(len(made.segments.ranges), dtype=bool)
    return replace(made, parts={"audio": AudioPart(heard, heard, [""] * len(heard), [])})


def cut(track: Track, num: int) -> Track:
    """As it is where the labels end after so many frames."""
    segments = track.segments
    edges = {"ranges": np.minimum(segments.ranges, num), "block_edges": np.minimum(segments.block_edges, num)}
    rows = {name: getattr(track, name)[:num] for name in ("time_s", "gold")}
    return replace(track, segments=replace(segments, **edges), **rows)


def said_of(track: Track) -> ndarray:
    """Frames of blocks that each say the time of their own middle, in seconds from the track's start."""
    windows = TASK.windows(track)
    middles = [track.segments.start_s[start // 4] + np.arange(4)[:, None] + 0.5 for start, _ in windows]
    predictions = [np.repeat(middle, 2, axis=1).astype(np.float32) for middle in middles]
    return TASK.predict(track, Outputs(windows, predictions, [m.astype(np.float32) for m in middles], []))[:, 0]


@pytest.mark.parametrize("fps", [10.0, 29.97])
@pytest.mark.parametrize("missing", [1, 7, 25])
def test_labels_that_end_early_leave_every_other_frame_as_it_was(fps: float, missing: int):
    """A full segment whose labels end in its middle keeps its blocks where they are, a second apart."""
    num = round(8 * fps)
    whole = track_of(num, fps)
    early = said_of(cut(whole, num - missing))
    # A full segment's frames are spread over its blocks: at 29.97 the last one lies 7 ms from its true time.
    assert early == pytest.approx(said_of(whole)[: num - missing], abs=0.01)


def test_a_finished_model_is_built_from_its_sizes_without_any_weights(monkeypatch: pytest.MonkeyPatch):
    """A hub that cannot be reached and a folder that went away do not matter to a model that was trained."""
    monkeypatch.setattr("affect.audio.task.load_backbone", lambda *_: pytest.fail("nothing pretrained is loaded"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    sizes |= {"conv_dim": [32] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    task = AudioTask(Wavlm(weights="/gone", hidden=12), 64_000)
    model = task.build_empty(sizes)
    assert {n: v for n, v in model.sizes.items() if n in sizes} == sizes
    assert model.backbone.config.num_hidden_layers == 2
