"""Real recordings of whom we know who is there: found, followed, and told apart by their lips."""

from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray

from affect.audio.speaking import mouth_open
from affect.corpus import video
from affect.face.clip import FaceClip
from affect.face.tracks import person_named, persons
from affect.settings.extraction import Tracking
from affect.settings.models import Speaking
from affect.tracks.features import faces_of
from tests.assets import clip
from tests.face.crossing import extract, extractor, lip_area

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceClip:
    return extractor(tmp_path_factory.mktemp("real") / "grada")


def times_of(path: Path) -> ndarray:
    """When the frames of a video are shown, in seconds."""
    return video.probe(str(path), path.name).time_s


def test_two_people_of_whom_one_speaks_are_followed_and_their_lips_tell_who(faces: FaceClip):
    path = clip("obama_speech.mp4")
    extracted, times = extract(faces, path), times_of(path)
    found = faces_of(extracted.table)
    people = persons(found, Tracking())
    assert (extracted.status, extracted.reason, len(times), len(people)) == ("ok", "", 105, 2)
    bystander, speaker = (person_named(people, found, name) for name in ("left", "right"))
    assert bystander is not None and speaker is not None
    assert min(len(bystander.frame), len(speaker.frame)) >= 0.98 * len(times)
    both, left, right = np.intersect1d(bystander.frame, speaker.frame, return_indices=True)
    assert len(both) >= 0.96 * len(times)
    middles = [(p.box[rows, 0] + p.box[rows, 2]) / 2 for p, rows in ((bystander, left), (speaker, right))]
    assert (middles[0] < middles[1]).all()

    area = {name: lip_area(p, extracted, len(times)) for name, p in (("speaker", speaker), ("bystander", bystander))}
    mean = {name: float(np.nanmean(values)) for name, values in area.items()}
    frame_s = float(np.median(np.diff(times)))
    open_s = {name: float(mouth_open(values, Speaking()).sum()) * frame_s for name, values in area.items()}
    # The rule for open mouths compares each with its own mean, so that one who listens has open seconds, too.
    print(f"mean lip area {mean}, seconds open {open_s}")
    assert mean["speaker"] >= 3 * mean["bystander"]


def test_who_leaves_is_not_seen_any_more(faces: FaceClip):
    path = clip("face_noface.mov")
    extracted, times = extract(faces, path), times_of(path)
    [person] = persons(faces_of(extracted.table), Tracking())
    seen = person.frame[~person.bridged]
    print(f"{len(seen)} of {len(times)} frames, {seen[0]} to {seen[-1]}")
    assert len(times) == 169
    assert seen[0] == 0 and 65 <= len(seen) and person.frame[-1] <= 80
    assert len(person.frame) >= 0.98 * (seen[-1] + 1)


def test_a_recording_of_nobody_has_nobody(faces: FaceClip):
    extracted = extract(faces, clip("no_face.mp4"))
    assert extracted.status in ("ok", "degraded")  # a few frames hold something that the detector takes for a face
    print(f"{extracted.table.num_rows} boxes that are no face")
    assert persons(faces_of(extracted.table), Tracking()) == []


def test_one_person_is_one_person_throughout(faces: FaceClip):
    path = clip("single_face.mp4")
    extracted, times = extract(faces, path), times_of(path)
    [person] = persons(faces_of(extracted.table), Tracking())
    print(f"{len(person.frame)} of {len(times)} frames, {int(person.bridged.sum())} bridged")
    assert extracted.status == "ok" and len(person.frame) >= 0.98 * len(times)
