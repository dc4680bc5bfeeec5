"""Stores and models of earlier versions are read: what decides an address gives the same address as it did then.

The values were printed by the code of version 0.1.0 before its modules were divided into rooms. A change of meaning
raises a version in :mod:`affect.storage.schema`, and then these values; nothing else may change them.
"""

import numpy as np
import pytest

from affect.modalities import KINDS, SYSTEMS
from affect.plan.clips import Video, keys_of
from affect.settings import recipes
from affect.settings.address import address
from affect.settings.paths import from_plain
from affect.storage.state import ProbeSummary
from affect.tracks.refs import _keys

RUN = recipes.raav()
VIDEO = Video(
    stem="a",
    uri="/a.mp4",
    path="a.mp4",
    bytes=1,
    probe_key="videos/a.parquet",
    head=ProbeSummary("0123456789ab", "ba9876543210", 3, 0.2, 0.3),
    reason="",
    prompts=("neutral", "left"),
)


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("face", "c32d8423e89bb8dc"),
        ("behavior", "5dcbf7df631564b8"),
        ("audio", "87cb757b11483385"),
        ("dcmmoe", "3f8e643302140522"),
        ("raav", "dc079b71af13abb6"),
    ],
)
def test_settings_of_a_model_have_their_address(system: str, expected: str):
    assert address(RUN.settings_of(system)) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("face", "d0f9bfc1b971eff7"),
        ("behavior", "7740960b00e843f9"),
        ("audio", "ac1254e1c5a79a2b"),
        ("description", "7bd3e6c08a5adbe3"),
    ],
)
def test_features_have_their_address(kind: str, expected: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(KINDS[kind], "content", lambda run: [kind], raising=False)  # no weights are needed
    assert KINDS[kind].address(RUN) == expected


def test_clips_and_tables_of_a_track_have_their_keys():
    where = {"behavior": "b" * 16}
    assert keys_of(VIDEO, RUN, where, "behavior") == ["behavior/dd106264332d420b/a-0123456789ab/00000.parquet"]
    clips = {m: [(f"{m}/key", "Outcome(status='ok', reason='', rows=1)")] for m in ("face", "behavior", "audio")}
    gold = np.array([[0.1, 0.2], [np.nan, np.nan], [-0.5, 0.25]])
    folder = "tracks/a-left-8b14e79c1edab487"
    assert _keys("a_left", "left", VIDEO, gold, RUN, clips, [(1, 0.5, 0.25)]) == {
        "frames": f"{folder}/frames.arrow",
        "segments": f"{folder}/segments.arrow",
        "face": f"{folder}/face-404ccb9d03bc447e.arrow",
        "behavior": f"{folder}/behavior-dd21fd18775a3018.arrow",
        "audio": f"{folder}/audio-5137f4b991ecf2f0.arrow",
        "waveforms": "waveforms/a-23e2f3e10ea4bcd8.rows.arrow",
    }


def test_settings_without_later_fields_are_read():
    """A model.json of RAAV from before it took other visual modalities."""
    plain = {"hidden": 64, "face_prior": 0.7, "behavior_prior": 0.3}
    settings = from_plain(SYSTEMS["raav"].model, plain)
    assert settings.priors == {"face": 0.7, "behavior": 0.3} and settings.reads == ("face", "behavior", "audio")
