"""ELAN: tiers in, tiers out."""

import numpy as np
import pytest

from affect.corpus.affwild2 import LabelError
from affect.corpus.elan import Annotation, pieces, read_eaf, read_export, write_eaf
from affect.corpus.ratings import Piece, at_frames

BOUNDS = (-1.0, 1.0)
TIME_S = np.arange(40) / 10


def tiers(rng: np.random.Generator, *persons: str) -> dict[str, np.ndarray]:
    """Ratings of every frame, some missing."""
    found = {}
    for person in persons:
        for dimension in ("valence", "arousal"):
            values = np.round(rng.uniform(-1, 1, len(TIME_S)), 2)
            values[rng.random(len(TIME_S)) < 0.1] = np.nan
            found[f"{dimension} {person}"] = values
    return found


def test_what_is_written_is_read_again():
    given = tiers(np.random.default_rng(0), "left", "right")
    content = write_eaf(given, TIME_S, "file:///videos/talk.mp4")
    assert b'RELATIVE_MEDIA_URL="./talk.mp4"' in content
    found = pieces(read_eaf(content, "talk.eaf"), "talk.eaf", "talk", "", BOUNDS)
    assert [part.track for part in found if isinstance(part, Piece)] == ["talk_left", "talk_right"]
    for part in found:
        assert isinstance(part, Piece)
        for dimension, curve in zip(("valence", "arousal"), part.curves, strict=True):
            values = at_frames(curve, TIME_S, 0.0, 0.05, by_frame=False)
            expected = given[f"{dimension} {part.track.removeprefix('talk_')}"]
            np.testing.assert_allclose(values, expected, atol=1e-9)


@pytest.mark.parametrize(
    "lines",
    [
        ["valence\t\t00:00:00.000\t00:00:01.500\t0.5", "arousal\t\t00:00:00.000\t00:00:01.500\t-0.5"],
        [
            "Tier\tPart\tBegin Time - ss.msec\tEnd",
            "valence\t\t0.0\t1.5\t0.5",
            "arousal\t\t0.0\t1.5\t-0.5",
        ],
        ["valence\t\t0\t1500\t1500\t0.5", "", "arousal\t\t0\t1500\t1500\t-0.5"],
        [
            "valence\tA\t00:00:00.000\t0.0\t0\t00:00:01.500\t1.5\t1500\t00:00:01.500\t1.5\t1500\t0.5",
            "arousal\tA\t00:00:00.000\t0.0\t0\t00:00:01.500\t1.5\t1500\t00:00:01.500\t1.5\t1500\t-0.5",
        ],
    ],
)
def test_exports_in_every_format_of_time(lines: list[str]):
    found = read_export("\n".join(lines).encode(), "a.txt")
    assert [(a.tier, a.start_s, a.end_s, a.text) for a in found] == [
        ("valence", 0.0, 1.5, "0.5"),
        ("arousal", 0.0, 1.5, "-0.5"),
    ]


def test_annotators_are_raters_and_tiers_of_other_things_are_not_read():
    def annotations(rater: str, value: str) -> list[Annotation]:
        return [Annotation(f"{name}@{rater}"[:7], rater, 0.0, 1.0, value) for name in ("valence", "arousal")]

    given = [*annotations("anna", "0.5"), *annotations("ben", "0.1"), Annotation("words", "anna", 0, 1, "hello")]
    found = pieces(given, "a.eaf", "a", "", BOUNDS)
    assert [(part.track, part.rater) for part in found if isinstance(part, Piece)] == [("a", "anna"), ("a", "ben")]


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ([Annotation("valence", "", 0, 1, "0.5")], "there is no tier arousal, but valence"),
        ([Annotation("valence", "", 0, 1, "good"), Annotation("arousal", "", 0, 1, "0")], "is 'good', not a number"),
        ([Annotation("valence", "", 0, 1, "7"), Annotation("arousal", "", 0, 1, "0")], r"is 7, outside of the stated"),
        ([Annotation("valence bob", "", 0, 1, "0"), Annotation("arousal bob", "", 0, 1, "0")], "a tier is of 'bob'"),
        (
            [
                Annotation("valence", "", 0, 1, "0"),
                Annotation("valence", "", 0.5, 1, "0"),
                Annotation("arousal", "", 0, 1, "0"),
            ],
            "two annotations of one tier overlap at 0.5 s",
        ),
    ],
)
def test_faults_of_a_person_are_told(annotations: list[Annotation], reason: str):
    [found] = pieces(annotations, "a.eaf", "a", "", BOUNDS)
    with pytest.raises(AssertionError, match=rf"^track a: a\.eaf: .*{reason}"):
        raise AssertionError(found)


BOMB = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]>
<ANNOTATION_DOCUMENT>&lol2;</ANNOTATION_DOCUMENT>"""
OUTSIDE = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY file SYSTEM "file:///etc/passwd">]><x>&file;</x>"""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "refused, it declares a document type or entities"),
        (OUTSIDE, "refused, it declares a document type or entities"),
        (b"<a><b></a>", "it is no XML"),
        (b"\x00\x01", "it is no XML"),
        (b'<D><TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="x"/></D>', "it is no ELAN file"),
        (b'<D><TIER TIER_ID="valence"><ALIGNABLE_ANNOTATION TIME_SLOT_REF1="a"/></TIER></D>', "it is no ELAN file"),
    ],
)
def test_files_that_are_no_eaf_are_refused(content: bytes, reason: str):
    with pytest.raises(LabelError, match=rf"^a\.eaf: {reason}"):
        read_eaf(content, "a.eaf")


TIMES = b"""<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="0"/><TIME_SLOT TIME_SLOT_ID="b" TIME_VALUE="%s"/>
<TIME_SLOT TIME_SLOT_ID="none"/></TIME_ORDER>"""
PART = b"""<TIER TIER_ID="%s"><ANNOTATION><ALIGNABLE_ANNOTATION TIME_SLOT_REF1="a" TIME_SLOT_REF2="%s">
<ANNOTATION_VALUE>0</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>"""


def test_tiers_that_are_not_read_may_be_as_they_like():
    content = (
        b"<D>" + TIMES % b"500" + PART % (b"valence", b"b") + PART % (b"arousal", b"b") + PART % (b"words", b"none")
    )
    [found] = pieces(read_eaf(content + b"</D>", "a.eaf"), "a.eaf", "a", "", BOUNDS)
    assert isinstance(found, Piece)
    with pytest.raises(LabelError, match="no tier is named valence or arousal, but words"):
        pieces(read_eaf(b"<D>" + PART % (b"words", b"none") + b"</D>", "a.eaf"), "a.eaf", "a", "", BOUNDS)
    refers = b'<D><TIER TIER_ID="valence"><ANNOTATION><REF_ANNOTATION/></ANNOTATION></TIER></D>'
    with pytest.raises(LabelError, match="tier valence refers to the annotations of another one"):
        read_eaf(refers, "a.eaf")


@pytest.mark.parametrize("end", [b"0", b"-5", b"99999999999999999"])
def test_intervals_that_end_before_they_begin_or_never_are_told(end: bytes):
    content = b"<D>" + TIMES % end + PART % (b"valence", b"b") + PART % (b"arousal", b"b") + b"</D>"
    [found] = pieces(read_eaf(content, "a.eaf"), "a.eaf", "a", "", BOUNDS)
    assert isinstance(found, str) and "a.eaf: the annotation at 0 s ends at" in found


def test_encodings_that_are_none_are_refused():
    with pytest.raises(LabelError, match=r"a\.eaf: it is no XML"):
        read_eaf(b'<?xml version="1.0" encoding="nonsense"?><D/>', "a.eaf")


def test_a_participant_is_no_time():
    [found] = read_export(b"valence\t12\t2000\t3000\t5", "a.txt")
    assert (found.start_s, found.end_s) == (2.0, 3.0)


def test_exports_without_times_are_refused():
    with pytest.raises(LabelError, match=r"a\.txt: line 1 is 'valence.t0\.5', not a tier"):
        read_export(b"valence\t0.5\n", "a.txt")
    with pytest.raises(LabelError, match=r"no tier is named valence or arousal, but words"):
        pieces([Annotation("words", "", 0, 1, "a")], "a.eaf", "a", "", BOUNDS)
