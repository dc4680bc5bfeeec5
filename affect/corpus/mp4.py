"""Box structure of MP4 and MOV files: number of indexed samples, and position of the media data.

Source: ISO/IEC 14496-12, section 4.2 (boxes), section 8.7.3 (sample sizes).
"""

from collections.abc import Iterator
from typing import Any

_MAX_BOXES = 256
"""Boxes of one level that are read, at most."""
_FIRST = (b"ftyp", b"moov", b"mdat", b"wide")
"""Types of a file's first box; a file that begins otherwise is of another format."""


def media_data(file: Any, size: int) -> list[tuple[int, int]]:  # noqa: ANN401 -- a file
    """Byte ranges of the encoded pictures and sounds; none in files of other formats.

    Args:
        file: the open file; its position is restored.
        size: size in bytes.
    """
    before = file.tell()
    found = [(start, end) for kind, start, _, end in _boxes(file, 0, size) if kind == b"mdat"]
    file.seek(before)
    return found


def num_samples(file: Any, size: int) -> int:  # noqa: ANN401 -- a file
    """Number of samples (pictures and pieces of sound) in the index; 0 in files of other formats.

    Samples of fragments, which have their own index, are not counted.

    Args:
        file: the open file.
        size: size in bytes.
    """
    unread = [(0, size)]
    total = 0
    while unread:
        for kind, _, body, end in _boxes(file, *unread.pop()):
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                unread.append((body, end))
            elif kind in (b"stsz", b"stz2"):
                file.seek(body + 8)
                total += int.from_bytes(file.read(4), "big")
    return total


def _boxes(file: Any, at: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:  # noqa: ANN401 -- a file
    """Boxes of a part of a file: type, start, start of the body, end; none in files of other formats.

    A box is its size, its type, and if the size is 1 its size in eight bytes.
    """
    whole = at == 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        size, body = int.from_bytes(head[:4], "big"), at + 8
        if size == 1:
            size, body = int.from_bytes(head[8:], "big"), at + 16
        if size == 0:
            size = end - at
        if size < 8 or (whole and at == 0 and head[4:8] not in _FIRST):
            return
        yield head[4:8], at, body, min(at + size, end)
        at += size
        if at >= end:
            return
