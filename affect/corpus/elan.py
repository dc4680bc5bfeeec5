"""ELAN: ratings from tiers of an .eaf file or its tab-separated export, and tiers of predictions.

A tier whose name contains ``valence`` or ``arousal`` holds numbers; the rest of its name is the person (``left``,
``right``; none: the main one), its annotator the rater. An annotation rates its whole interval. Other tiers are not
read.

Source: EAF annotation format 3.0 (schema EAFv3.0.xsd), ELAN's export as tab-delimited text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree as Tree

import defusedxml.ElementTree
import numpy as np
from defusedxml import DefusedXmlException
from jaxtyping import Float
from numpy import ndarray

from affect.corpus.affwild2 import LabelError
from affect.corpus.images import DIMENSIONS
from affect.corpus.ratings import Curve, Piece, scaled

PERSONS = {"": "", "main": "", "left": "_left", "right": "_right"}
"""Suffix of a track's name by the person of a tier."""
END_S = 1e-3
"""Seconds between the last rating of an annotation and its end, where the next one may begin: ELAN's resolution."""
MAX_S = 86_400.0
"""Longest annotation, in seconds: a day."""
STEP_S = 0.04
"""Most seconds between two ratings within an annotation, which rates its whole interval."""
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d\.\d+)$")


class Annotation(NamedTuple):
    """One annotation of a tier.

    Args:
        tier: name of the tier.
        rater: its annotator; may be empty.
        start_s: start of the interval.
        end_s: end of the interval.
        text: its value.
    """

    tier: str
    rater: str
    start_s: float
    end_s: float
    text: str


def read_eaf(content: bytes, path: str) -> list[Annotation]:
    """Reads an .eaf file; entities and document types are refused.

    Raises:
        LabelError: it is no such file.
    """
    try:
        root = defusedxml.ElementTree.fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        raise LabelError(f"{path}: refused, it declares a document type or entities: {type(error).__name__}") from None
    except (Tree.ParseError, LookupError, ValueError) as error:  # an unknown encoding is a LookupError
        raise LabelError(f"{path}: it is no XML: {error}") from None
    try:
        slots = {
            slot.attrib["TIME_SLOT_ID"]: int(slot.attrib["TIME_VALUE"]) / 1000
            for slot in root.iter("TIME_SLOT")
            if "TIME_VALUE" in slot.attrib
        }
        origins = [int(media.attrib.get("TIME_ORIGIN", 0)) / 1000 for media in root.iter("MEDIA_DESCRIPTOR")]
        origin = (origins or [0.0])[0]
        return [part for tier in root.iter("TIER") for part in _annotations(tier, slots, origin, path)]
    except (KeyError, ValueError, OverflowError) as error:
        raise LabelError(f"{path}: it is no ELAN file: {error} is missing or no number") from None


def _annotations(tier: Tree.Element, slots: Mapping[str, float], origin: float, path: str) -> Iterator[Annotation]:
    """Annotations of a tier of ratings; one without text of another tier, to say that it is there.

    Raises:
        KeyError: an annotation has no time.
        LabelError: a tier of ratings has no times of its own.
    """
    name, rater = tier.attrib["TIER_ID"], tier.attrib.get("ANNOTATOR", "")
    if not any(dimension in name.lower() for dimension in DIMENSIONS):
        yield Annotation(name, rater, 0.0, 0.0, "")
        return
    if tier.find(".//REF_ANNOTATION") is not None:
        raise LabelError(f"{path}: tier {name} refers to the annotations of another one: give it times of its own")
    for part in tier.iter("ALIGNABLE_ANNOTATION"):
        start, end = (slots[part.attrib[f"TIME_SLOT_REF{i}"]] + origin for i in (1, 2))
        yield Annotation(name, rater, start, end, part.findtext("ANNOTATION_VALUE") or "")


def read_export(content: bytes, path: str) -> list[Annotation]:
    """Reads ELAN's tab-separated export: tier, participant, times of begin and end, value.

    Times may be hh:mm:ss.ms, seconds or milliseconds, or several of them.

    Raises:
        LabelError: a line is not of that format.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: it is no text: {error}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t")
        if not line.strip() or any(cell.startswith("Begin Time") for cell in cells):  # the names of the columns
            continue
        times = _times(cells[2:-1])  # behind the participant
        if len(times) < 2:
            raise LabelError(
                f"{path}: line {number} is {line[:60]!r}, not a tier, participant, begin, end and value between tabs"
            )
        found.append(Annotation(cells[0], "", times[0], times[1], cells[-1]))
    return found


def _times(cells: Sequence[str]) -> list[float]:
    """Times in seconds of the most readable format among cells."""
    clocks = [match for cell in cells if (match := _CLOCK.match(cell.strip()))]
    if len(clocks) >= 2:
        return [3600 * int(h) + 60 * int(m) + float(s) for h, m, s in (match.groups() for match in clocks)]
    plain = [cell.strip() for cell in cells if re.fullmatch(r"\d+(\.\d+)?", cell.strip())]
    seconds = [float(cell) for cell in plain if "." in cell]
    return seconds if len(seconds) >= 2 else [int(cell) / 1000 for cell in plain if "." not in cell]


def pieces(
    annotations: Iterable[Annotation], path: str, track: str, rater: str, bounds: tuple[float, float]
) -> list[Piece | str]:
    """Ratings of every person and rater.

    Args:
        annotations: of all tiers.
        path: path of the file, for messages.
        track: name of the video; persons other than the main one have tracks of their own.
        rater: name of the rater where a tier has no annotator.
        bounds: lowest and highest possible rating.

    Returns:
        A piece per person and rater, or the reason why it cannot be used.

    Raises:
        LabelError: there is no tier of ratings.
    """
    groups: dict[tuple[str, str], dict[str, list[Annotation]]] = {}
    annotations = list(annotations)
    names = dict.fromkeys(annotation.tier for annotation in annotations)
    for annotation in annotations:
        for dimension in DIMENSIONS:
            if dimension in annotation.tier.lower():
                person = re.sub(rf"{dimension}|[\s_\-@.:]", "", annotation.tier.lower())
                group = groups.setdefault((person, annotation.rater or rater), {})
                group.setdefault(dimension, []).append(annotation)
    if not groups:
        raise LabelError(f"{path}: no tier is named valence or arousal, but {', '.join(names)[:100] or 'none'}")
    found: list[Piece | str] = []
    for (person, who), of_dimension in groups.items():
        try:
            if person not in PERSONS:
                raise LabelError(f"{path}: a tier is of {person!r}, a person is main, left or right")
            for dimension in DIMENSIONS:
                if dimension not in of_dimension:
                    of = f" of {person}" if person else ""
                    raise LabelError(f"{path}: there is no tier {dimension}{of}, but {', '.join(names)}")
            valence, arousal = (_curve(of_dimension[dimension], path, bounds) for dimension in DIMENSIONS)
            found.append(Piece(f"{track}{PERSONS[person]}", who, (valence, arousal), False, "train", "", path))
        except LabelError as error:
            found.append(f"track {track}: {error}")
    return found


def _curve(annotations: list[Annotation], path: str, bounds: tuple[float, float]) -> Curve:
    """Ratings throughout every interval."""
    at, values, low, high = list[float](), list[float](), *bounds
    for start_s, end_s, text in sorted((a.start_s, a.end_s, a.text) for a in annotations):
        try:
            value = float(text)
        except ValueError:
            raise LabelError(f"{path}: the annotation at {start_s:g} s is {text[:40]!r}, not a number") from None
        if not low <= value <= high:
            raise LabelError(
                f"{path}: the annotation at {start_s:g} s is {value:g}, outside of the stated range {low:g}..{high:g}"
            )
        if not 0 < end_s - start_s <= MAX_S:
            raise LabelError(f"{path}: the annotation at {start_s:g} s ends at {end_s:g} s")
        if at and start_s <= at[-1]:
            raise LabelError(f"{path}: two annotations of one tier overlap at {start_s:g} s")
        last_s = max(start_s + END_S / 2, end_s - END_S)
        times = np.linspace(start_s, last_s, 2 + int((last_s - start_s) / STEP_S))
        at += times.tolist()
        values += [value] * len(times)
    return Curve(np.array(at), scaled(np.array(values), bounds))


def write_eaf(tiers: Mapping[str, Float[ndarray, " frames"]], time_s: Float[ndarray, " frames"], media: str) -> bytes:
    """An .eaf file with an annotation per value and tier, as long as the value holds.

    Args:
        tiers: values by name of the tier, NaN where there is none; written with two decimals.
        time_s: time of every frame.
        media: path or URL of the video.
    """
    about = {"AUTHOR": "affect", "DATE": "1970-01-01T00:00:00Z", "FORMAT": "3.0", "VERSION": "3.0"}
    root = Tree.Element("ANNOTATION_DOCUMENT", about)
    header = Tree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    beside = f"./{media.rpartition('/')[2]}"
    Tree.SubElement(header, "MEDIA_DESCRIPTOR", MEDIA_URL=media, MIME_TYPE="video/*", RELATIVE_MEDIA_URL=beside)
    order = Tree.SubElement(root, "TIME_ORDER")
    edges = np.round(1000 * np.append(time_s, 2 * time_s[-1] - time_s[max(0, len(time_s) - 2)])).astype(int)
    count = 0
    for name, values in tiers.items():
        tier = Tree.SubElement(root, "TIER", LINGUISTIC_TYPE_REF="default-lt", TIER_ID=name)
        for first, end, text in _runs(values):
            slots = [f"ts{2 * count + i + 1}" for i in range(2)]
            for slot, frame in zip(slots, (first, end), strict=True):
                Tree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=str(edges[frame]))
            annotation = Tree.SubElement(
                Tree.SubElement(tier, "ANNOTATION"),
                "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{count + 1}",
                TIME_SLOT_REF1=slots[0],
                TIME_SLOT_REF2=slots[1],
            )
            Tree.SubElement(annotation, "ANNOTATION_VALUE").text = text
            count += 1
    Tree.SubElement(
        root, "LINGUISTIC_TYPE", GRAPHIC_REFERENCES="false", LINGUISTIC_TYPE_ID="default-lt", TIME_ALIGNABLE="true"
    )
    Tree.indent(root)
    content: bytes = Tree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return content


def _runs(values: Float[ndarray, " frames"]) -> Iterator[tuple[int, int, str]]:
    """First frame, end and text of every run of frames with equal text."""
    texts = ["" if np.isnan(value) else f"{value:.2f}" for value in values]
    first = 0
    for end in range(1, len(texts) + 1):
        if end == len(texts) or texts[end] != texts[first]:
            if texts[first]:
                yield first, end, texts[first]
            first = end
