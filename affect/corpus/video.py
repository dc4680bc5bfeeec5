"""Videos: what is in one (probe), and the frames of a time range, one at a time, by presentation timestamp.

Source: PyAV's documentation; ffmpeg's semantics of packets, discard flags and display matrices.
"""

import errno
import io
import itertools
import math
import os
import stat
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8
from numpy import ndarray

from affect.storage import files
from affect.storage.ranges import RangeFile
from affect.timeline import Timestamps

# A seek can land after the wanted frame: frames shown just before an open group of pictures' keyframe need the group
# before, and FLV and fragmented MP4 seek by decoding time. The next try goes back this much, the last one to the start.
_SEEK_BACK_S = (0.0, 3.0)
_INDEXED = ("h264", "hevc", "mpeg4", "mjpeg")
"""Codecs whose packets in MP4 and MOV are passed on as the index says, without a look at their data."""
_MAX_BOXES = 256
_OPTIONS = {
    # a playlist may name any file or host, a pattern any picture: videos are read, and nothing that they point at
    "format_whitelist": "mov,matroska,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,gif,m4v,h264,hevc,ivf,mxf,nut,dv",
    "protocol_whitelist": "file",
}
MAX_PIXELS, MAX_DURATION_S, MAX_STREAMS = 1 << 26, 86_400.0, 100
"""Largest picture (8K is half of it), longest span of frame times and most streams that are believed."""


class MediaError(ValueError):
    """A video that cannot be used: what is wrong with it, in words for its owner."""


@dataclass(frozen=True)
class Probe:
    """What a video holds, without its pictures.

    Args:
        path: relative to the folder or bucket of videos.
        bytes: size.
        fingerprint: of path, size, first and last MiB.
        content: of size, first and last MiB: one video under any name.
        width: of the picture as shown.
        height: of the picture as shown.
        rotation: degrees counter-clockwise that make a decoded frame upright, a multiple of 90.
        has_audio: whether there is an audio stream.
        start_s: container time of the first frame.
        time_s: presentation time of every frame from the first one's, strictly increasing.
    """

    path: str
    bytes: int
    fingerprint: str
    content: str
    width: int
    height: int
    rotation: int
    has_audio: bool
    start_s: float
    time_s: Float[ndarray, " frames"]

    @property
    def clock(self) -> Timestamps:
        """The video's frame clock."""
        return Timestamps(self.time_s)


def open_media(uri: str) -> AbstractContextManager[InputContainer]:
    """Open a local video or one in a bucket, which is then read by range.

    Raises:
        MediaError: it is no media file.
        OSError: it is missing or may not be read.
    """
    return _container(_source(uri))


def _source(uri: str) -> str | RangeFile:
    """What ffmpeg reads: a path of this machine, or a bucket's object by range."""
    return RangeFile(uri) if "://" in uri else files.absolute(uri)


def _container(source: str | RangeFile) -> AbstractContextManager[InputContainer]:
    if isinstance(source, RangeFile):
        source.seek(0)
    try:
        # titles come in any encoding
        return cast(Any, av.open(source, mode="r", metadata_errors="replace", options=dict(_OPTIONS)))
    except av.error.MemoryError as error:  # what a damaged index asks for
        raise MediaError("cannot be opened as a video (its index is damaged)") from error
    except av.error.ArgumentError as error:
        raise MediaError("cannot be opened as a video (it is in no format for videos)") from error
    except (OSError, MemoryError):
        raise  # missing, forbidden, out of reach: nothing is wrong with the video
    except av.error.FFmpegError as error:
        raise MediaError(f"cannot be opened as a video ({error.strerror})") from error


def pictures_of(container: InputContainer) -> VideoStream:
    """The stream of pictures that is meant: of several the one that ffmpeg takes, which is no cover before a film.

    Raises:
        MediaError: there is none.
    """
    found = container.streams.video
    if not found:
        raise MediaError("it has no video stream")
    best = found[0] if len(found) == 1 else container.streams.best("video")
    return cast(VideoStream, best or found[0])


def packets(container: InputContainer, stream: Stream) -> Iterator[av.Packet]:
    """Packets of a stream, up to where the data end, or cannot be followed any more; the last one is empty."""
    for _ in range(2):
        try:
            yield from container.demux(stream)
        except IndexError:  # at the end, where a stream appeared in mid-file: the empty one is still to come
            continue
        except av.error.FFmpegError:
            pass
        return


def _whole(source: str | RangeFile) -> AbstractContextManager[InputContainer]:
    """A file whose beginning and end could be read: an error of reading is the file's own, which ends too early."""
    try:
        return _container(source)
    except OSError as error:
        if isinstance(error, av.error.FFmpegError) and error.errno == errno.EIO:
            raise MediaError("cannot be opened as a video (it ends too early)") from error
        raise


def probe(uri: str, path: str) -> Probe:
    """Read streams and frame times, decoding no more than the first frame.

    In a bucket, an MP4's or MOV's index is enough; of other containers every packet is read.

    Args:
        uri: the video.
        path: its path relative to the folder or bucket of videos.

    Raises:
        MediaError: no video stream, no frame, nothing in it can be decoded, or larger or longer than is believed.
        OSError: it is missing or may not be read.
    """
    source = _source(uri)
    if isinstance(source, str) and not stat.S_ISREG(os.stat(source).st_mode):
        raise MediaError("it is no file")
    with open(source, "rb") if isinstance(source, str) else nullcontext(source) as file:
        size = file.seek(0, io.SEEK_END)
        mark, content = files.fingerprint(file, size, path), files.fingerprint(file, size, "")
        if size == 0:
            raise MediaError("the file is empty")
        _check_index(file, size)
    with _whole(source) as container:
        if (number := len(container.streams)) > MAX_STREAMS:
            raise MediaError(f"it has {number} streams, more than {MAX_STREAMS}")
        shape = pictures_of(container).codec_context
        if shape is not None and shape.width * shape.height > MAX_PIXELS:
            raise MediaError(f"its pictures have {shape.width} x {shape.height} pixels, more than {MAX_PIXELS:,}")
        first = _first_frame(container)
        rotation = round(first.rotation / 90) * 90 % 360
        width, height = (first.height, first.width) if rotation % 180 else (first.width, first.height)
        has_audio = len(container.streams.audio) > 0
    with _whole(source) as container:
        if isinstance(source, RangeFile) and pictures_of(container).codec_context.name in _INDEXED:
            source.hollow = _media_data(source)
        times = _frame_times(container)
    start, span = float(times[0]), float(times[-1] - times[0])
    if span > MAX_DURATION_S:
        raise MediaError(f"its frames span {span / 3600:,.0f} hours, more than {MAX_DURATION_S / 3600:.0f}")
    return Probe(path, size, mark, content, width, height, rotation, has_audio, start, times - start)


def _media_data(file: RangeFile) -> list[tuple[int, int]]:
    """Where the pictures and sounds of an MP4 or MOV are, which its index tells; nothing of other containers."""
    before = file.tell()
    found = [(at, end) for kind, at, _, end in _boxes(file, 0, file.size) if kind == b"mdat"]
    file.seek(before)
    return found


def _check_index(file: Any, size: int) -> None:  # noqa: ANN401 -- a file
    """See that an MP4's or MOV's index lists no more samples than the file can have, before it is given memory.

    Fragments, which list their own, are not looked at.

    Raises:
        MediaError: it lists more than one a bit; sound in old MOVs counts more than one a byte.
    """
    inside = [(0, size)]
    listed = 0
    while inside:
        for kind, _, body, end in _boxes(file, *inside.pop()):
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                inside.append((body, end))
            elif kind in (b"stsz", b"stz2"):
                file.seek(body + 8)
                listed += int.from_bytes(file.read(4), "big")
    if listed > 8 * size:
        raise MediaError(f"its index lists {listed:,} pictures and sounds, and it has {size:,} bytes")


def _boxes(file: Any, at: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:  # noqa: ANN401 -- a file
    """Boxes of a part of an MP4 or MOV: type, start, start of the body, end; nothing of other containers.

    Source: ISO/IEC 14496-12, section 4.2: a box is its size, its type, and if the size is 1 its size in eight bytes.
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
        if size < 8 or (whole and at == 0 and head[4:8] not in (b"ftyp", b"moov", b"mdat", b"wide")):
            return
        yield head[4:8], at, body, min(at + size, end)
        at += size
        if at >= end:
            return


def _first_frame(container: InputContainer) -> av.VideoFrame:
    reason = ""
    for packet in packets(container, _limited(pictures_of(container))):
        try:
            for frame in packet.decode():
                return frame
        except av.error.DecoderNotFoundError as error:
            raise MediaError(f"cannot be decoded ({error.strerror})") from error
        except av.error.FFmpegError as error:  # a later one may be whole
            reason = f" ({error.strerror})"
    raise MediaError(f"not one frame can be decoded{reason}")


def _limited(stream: VideoStream) -> VideoStream:
    """The same, whose pictures may not grow beyond what is believed; such a one is a broken one."""
    if stream.codec_context is not None:  # there is a decoder
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _frame_times(container: InputContainer) -> Float[ndarray, " frames"]:
    stream = pictures_of(container)
    stamps = set()
    for packet in packets(container, stream):
        stamp = packet.pts if packet.pts is not None else packet.dts
        if packet.size and stamp is not None and not packet.is_discard:
            stamps.add(stamp)
    if not stamps:
        raise MediaError("its frames carry no timestamps")
    return np.array(sorted(stamps), dtype=np.float64) * float(cast(Any, stream.time_base))


def decode(
    uri: str,
    info: Probe,
    first: int,
    last: int,
    *,
    width: int | None = None,
    height: int | None = None,
    only: Container[int] | None = None,
) -> Iterator[tuple[int, UInt8[ndarray, "H W 3"]]]:
    """Decode frames ``[first, last)`` in order, as they are shown, streaming.

    Seeks to the keyframe before and decodes forward. Frames whose data are broken are left out, so the numbers may
    have gaps.

    Args:
        uri: the video.
        info: its probe.
        first: first frame, 0-based.
        last: frame to stop before.
        width: width to scale the upright picture to, with ``height``; its own size if not given.
        height: height to scale to.
        only: frames that are wanted, all of them if not given: the others are decoded, but not made into pictures.

    Yields:
        Frame number and RGB picture.

    Raises:
        MediaError: the video cannot be opened.
    """
    last = min(last, len(info.time_s))
    if first >= last:
        return
    if info.rotation % 180:
        width, height = height, width
    for back_s in (*_SEEK_BACK_S, math.inf) if first > 0 else (math.inf,):
        with open_media(uri) as container:
            numbered = _numbered(container, info, first, back_s)
            head = next(numbered, None)
            if back_s < math.inf and (head is None or head[0] > first):
                continue
            shown = first - 1
            for number, frame in itertools.chain([head] if head else [], numbered):
                if number >= last:
                    return
                if number <= shown or (only is not None and number not in only):
                    continue  # damaged timestamps may go back
                shown = number
                picture = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BICUBIC")
                yield number, np.ascontiguousarray(np.rot90(picture, info.rotation // 90)) if info.rotation else picture
            return


def _numbered(container: InputContainer, info: Probe, first: int, back_s: float) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decoded frames with their numbers, from a keyframe at least ``back_s`` before frame ``first``, or from the start.

    AVI has no presentation times: where its frames are stored in another order than shown, they are counted.
    """
    stream = _limited(pictures_of(container))
    stream.thread_type = "AUTO"
    time_base = float(cast(Any, stream.time_base))
    half = 0.5 * time_base
    counted = container.format.name == "avi" and stream.codec_context.has_b_frames
    if counted and back_s < math.inf:
        return
    if back_s < math.inf:
        wanted_s = max(0.0, info.time_s[first] - back_s) + info.start_s
        try:
            container.seek(round(wanted_s / time_base), stream=stream, backward=True)
        except av.error.FFmpegError:  # it cannot be sought in
            return
    for count, frame in enumerate(_frames(container, stream)):
        stamp = frame.pts if frame.pts is not None else frame.dts
        if counted:
            yield count, frame
        elif stamp is not None:
            time_s = stamp * time_base - info.start_s
            number = int(np.searchsorted(info.time_s, time_s - half))
            if number < len(info.time_s) and abs(info.time_s[number] - time_s) <= half:
                yield number, frame


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Decoded frames in order; a packet whose data are broken gives none."""
    for packet in packets(container, stream):
        try:
            yield from cast(Any, packet.decode())
        except av.error.FFmpegError:  # decoders have many words for it
            continue
