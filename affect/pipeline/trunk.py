"""Computes the states of the audio model's frozen layers once; all trainings read them."""

from collections.abc import Sequence

from affect.modalities import MODALITIES
from affect.pipeline import graph
from affect.progress import Meter, say
from affect.settings.run import Run
from affect.storage.store import Store
from affect.tracks.tables import TrackRef
from affect.trained.trunk import LARGEST, trunk_key


def store_trunk(run: Run, refs: Sequence[TrackRef], store: Store) -> str:
    """Computes the missing states of the frozen layers.

    Args:
        run: the run.
        refs: assembled tracks.
        store: store of waveforms and states.

    Returns:
        Address of the states.
    """
    trunk = MODALITIES["audio"].trunk_address(run)
    present = store.keys(f"trunk/{trunk}")
    missing = {key: ref.keys["waveforms"] for ref in refs if (key := trunk_key(trunk, ref)) not in present}
    if not missing:
        return trunk
    from affect.audio.task import AudioTask  # imported late: most trainings need no transformers

    AudioTask(run.wavlm, 0).build()  # weights that cannot be loaded are one error here instead of one per actor
    say(f"trunk: the frozen layers of {run.wavlm.weights} on {len(missing)} videos")
    rows = [{"key": key, "source": source, "unit": key, "length_s": 0.0} for key, source in missing.items()]
    clipped = 0
    with Meter("trunk", float(len(missing)), "videos") as meter:
        for row in graph.trunk(rows, run, store):
            clipped += int(row["clipped"])
            meter.advance(1.0)
    if clipped:
        say(f"trunk: {clipped} states exceed the range of 16 bits and were stored as {LARGEST:g}")
    return trunk
