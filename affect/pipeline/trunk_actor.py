"""The actor that computes the states of the audio model's frozen layers."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from affect.audio.part import stored_waveforms
from affect.audio.task import AudioTask, padded
from affect.audio.wavlm import WavlmRegressor
from affect.learning import batches
from affect.pipeline.cluster import device
from affect.settings.models import Wavlm
from affect.storage import schema
from affect.storage.columns import list_column
from affect.storage.extracted import Extracted
from affect.storage.store import Store
from affect.trained.trunk import LARGEST

SILENT = np.zeros((0, 1), dtype=np.float16)


class TrunkActor:
    """An actor that runs the frozen layers of the audio model.

    Args:
        settings: settings of the model.
        segment_samples: samples of a full segment.
        store: store of waveforms and states.
    """

    def __init__(self, settings: Wavlm, segment_samples: int, store: Store) -> None:
        """Loads the model."""
        torch.set_num_threads(1)
        self._device = torch.device(device())
        task = AudioTask(settings, segment_samples)
        self._model: WavlmRegressor = task.build().eval().to(self._device)
        self._settings, self._samples, self._store = settings, segment_samples, store

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Writes the states of one video; a segment without sound has none.

        Raises:
            ValueError: a state is not finite.
        """
        key, source = str(batch["key"][0]), str(batch["source"][0])
        waves = [wave[: self._samples] for wave in stored_waveforms(self._store, source)]
        rows, clipped = [_row(number, wave, SILENT) for number, wave in enumerate(waves)], 0
        with_sound = [number for number, wave in enumerate(waves) if len(wave)]
        size = self._settings.fit.batch_size
        for start in range(0, len(with_sound), size):
            part = with_sound[start : start + size]
            found = self._states([waves[number] for number in part])
            if not found.isfinite().all():
                raise ValueError(f"{source}: a state of segments {part} after the frozen layers is not finite")
            clipped += int((found.abs() > LARGEST).sum())
            for number, states in zip(part, found.clamp(-LARGEST, LARGEST).half().numpy(), strict=True):
                rows[number] = _row(number, waves[number], states)
        # A batch per row: offsets of all states of a long video do not fit into 32 bits.
        self._store.put(key, Extracted(pa.Table.from_batches(rows, schema.TRUNK)))
        return {"clipped": np.array([clipped])}

    def _states(self, waves: list[np.ndarray]) -> torch.Tensor:
        """States (segments, positions, width) after the frozen layers."""
        x = torch.from_numpy(np.stack([padded(wave, self._samples) for wave in waves]))
        lengths = torch.tensor([len(wave) for wave in waves], device=self._device)
        fit = self._settings.fit
        with torch.inference_mode(), batches.full_float32(fit), batches.autocast(fit, self._device):
            return self._model.trunk(x.to(self._device), lengths).float().cpu()


def _row(number: int, wave: np.ndarray, states: np.ndarray) -> pa.RecordBatch:
    """Row of a segment: its number, its samples and its states."""
    each = list_column(states, pa.float16())
    whole = pa.ListArray.from_arrays(np.array([0, len(states)], dtype=np.int32), each)
    return pa.record_batch([pa.array([number], pa.int32()), pa.array([len(wave)], pa.int32()), whole], schema.TRUNK)
