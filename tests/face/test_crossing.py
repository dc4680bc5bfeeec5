"""Two people pass each other, hide, change sides at a cut and come back: each stays the same person throughout."""

import numpy as np
import pytest
from numpy import ndarray

from affect.face.tracks import Person, persons
from affect.settings.extraction import Tracking
from affect.tracks.features import faces_of
from tests.face.crossing import BACK, FPS, FRONT, Crossing, crossing, extract, extractor, film


@pytest.fixture(scope="module")
def truth() -> Crossing:
    return crossing()


@pytest.fixture(scope="module")
def people(truth: Crossing, tmp_path_factory: pytest.TempPathFactory) -> list[Person]:
    folder = tmp_path_factory.mktemp("crossing")
    extracted = extract(extractor(folder / "grada"), film(folder / "crossing.mp4", truth.pictures, FPS))
    assert extracted.status == "ok", extracted.reason
    return persons(faces_of(extracted.table), Tracking())


def owners(person: Person, truth: Crossing) -> ndarray:
    """Whose face each of a person's boxes is on: the nearest visible one's, -1 where nobody is visible."""
    middle = (person.box[:, :2] + person.box[:, 2:]) / 2
    apart = np.linalg.norm(truth.face[person.frame] - middle[:, None], axis=2)
    apart[~truth.visible[person.frame]] = np.inf
    return np.where(np.isfinite(apart).any(axis=1), apart.argmin(axis=1), -1)


def by_name(people: list[Person], truth: Crossing) -> dict[int, Person]:
    """The person that each of the two is most of the time."""
    found = [owners(person, truth) for person in people]
    return {int(np.bincount(own[own >= 0]).argmax()): person for own, person in zip(found, people, strict=True)}


def test_the_film_shows_what_it_says(truth: Crossing):
    hidden = ~np.isnan(truth.face[:, BACK, 0]) & ~truth.visible[:, BACK]
    assert 3 <= hidden.sum() <= FPS, "one is covered by the other for a moment"
    side = np.sign(np.diff(truth.face[:, :, 0], axis=1)[:, 0])
    side = side[np.abs(side) == 1]  # without the frames in which one is away
    assert (np.diff(side) != 0).sum() == 2, "their sides change as they pass and at the cut"


def test_two_people_are_two_people_without_one_switch_of_identity(people: list[Person], truth: Crossing):
    assert len(people) == 2
    found = by_name(people, truth)
    assert sorted(found) == [BACK, FRONT]
    seen = {}
    for who, person in found.items():
        there = truth.visible[person.frame, who]
        assert person.frame[there & (owners(person, truth) != who)].tolist() == []
        seen[who] = set(person.frame[~person.bridged].tolist())
        away = np.flatnonzero(np.isnan(truth.face[:, who, 0]))
        assert seen[who].isdisjoint(away.tolist()), "nobody is seen while they are away"
    covered = set(np.flatnonzero(~truth.visible[:, BACK]).tolist())
    assert covered & seen[BACK] <= seen[FRONT], "the only visible face is that of the one in front"


def test_nearly_every_frame_in_which_somebody_is_visible_is_covered(people: list[Person], truth: Crossing):
    covered = np.zeros_like(truth.visible)
    for who, person in by_name(people, truth).items():
        covered[person.frame, who] = True
    share = covered[truth.visible].mean()
    print(f"covered: {share:.4f} of {truth.visible.sum()} visible faces")
    assert share >= 0.95
