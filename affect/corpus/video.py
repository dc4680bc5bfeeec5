"""Videos: reads streams and frame times (probe), and decodes the frames of a range by presentation timestamp.

Source: PyAV's documentation; ffmpeg's documentation of packets, discard flags and display matrices.
"""

import errno
import io
import itertools
import math
import os
import stat
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8
from numpy import ndarray

from affect.corpus import mp4
from affect.corpus.probe import Probe
from affect.storage import files
from affect.storage.ranges import RangeFile

# A seek can land after the wanted frame: frames shown just before the keyframe of an open group of pictures need the
# group before, and FLV and fragmented MP4 seek by decoding time. Seconds that each attempt goes back before the wanted
# frame; after them, decoding begins at the start of the file.
_SEEK_BACK_S = (0.0, 3.0)
_INDEXED = ("h264", "hevc", "mpeg4", "mjpeg")
"""Codecs whose packets in MP4 and MOV are demuxed by the index alone, without reading their data."""
_OPTIONS = {
    # security: playlists and image patterns could read other files or hosts, so only plain video formats are opened
    "format_whitelist": "mov,matroska,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,gif,m4v,h264,hevc,ivf,mxf,nut,dv",
    "protocol_whitelist": "file",
}
MAX_PIXELS, MAX_DURATION_S, MAX_STREAMS = 1 << 26, 86_400.0, 100
"""Limits of pixels per picture (8K has half of it), seconds and streams; larger values are damaged headers."""


class MediaError(ValueError):
    """A video that cannot be used; the message is the reason that users read."""


def open_media(uri: str) -> AbstractContextManager[InputContainer]:
    """Opens a local video, or one in a bucket, which is read by byte range.

    Raises:
        MediaError: the file is not a video.
        OSError: the file is missing or may not be read.
    """
    return _container(_source(uri))


def _source(uri: str) -> str | RangeFile:
    """Input for ffmpeg: a local path, or a file object that reads a bucket by byte range."""
    return RangeFile(uri) if "://" in uri else files.absolute(uri)


def _container(source: str | RangeFile) -> AbstractContextManager[InputContainer]:
    if isinstance(source, RangeFile):
        source.seek(0)
    try:
        # titles may have any encoding
        return cast(Any, av.open(source, mode="r", metadata_errors="replace", options=dict(_OPTIONS)))
    except av.error.MemoryError as error:  # a damaged index can ask for too much memory
        raise MediaError("cannot be opened as a video (its index is damaged)") from error
    except av.error.ArgumentError as error:
        raise MediaError("cannot be opened as a video (it is in no format for videos)") from error
    except (OSError, MemoryError):
        raise  # missing, forbidden or unreachable: not a fault of the video
    except av.error.FFmpegError as error:
        raise MediaError(f"cannot be opened as a video ({error.strerror})") from error


def video_stream(container: InputContainer) -> VideoStream:
    """Video stream of a container; of several the one that ffmpeg prefers, which is not a cover picture.

    Raises:
        MediaError: there is no video stream.
    """
    found = container.streams.video
    if not found:
        raise MediaError("it has no video stream")
    best = found[0] if len(found) == 1 else container.streams.best("video")
    return cast(VideoStream, best or found[0])


def packets(container: InputContainer, stream: Stream) -> Iterator[av.Packet]:
    """Packets of a stream up to its end or to damaged data; a last empty packet flushes the decoder."""
    for _ in range(2):
        try:
            yield from container.demux(stream)
        except IndexError:  # at the end, if a stream began in mid-file: the empty packet is still to come
            continue
        except av.error.FFmpegError:
            pass
        return


def _open_readable(source: str | RangeFile) -> AbstractContextManager[InputContainer]:
    """Opens a file whose first and last bytes could be read; a read error then means that the file is truncated."""
    try:
        return _container(source)
    except OSError as error:
        if isinstance(error, av.error.FFmpegError) and error.errno == errno.EIO:
            raise MediaError("cannot be opened as a video (it ends too early)") from error
        raise


def probe(uri: str, path: str) -> Probe:
    """Reads streams and frame times; only the first frame is decoded.

    In a bucket, only the index of an MP4 or MOV is read; other containers are read completely.

    Args:
        uri: path or URI of the video.
        path: its path relative to the folder or bucket of videos.

    Raises:
        MediaError: there is no video stream or no decodable frame, or the video exceeds a limit.
        OSError: the file is missing or may not be read.
    """
    source = _source(uri)
    if isinstance(source, str) and not stat.S_ISREG(os.stat(source).st_mode):
        raise MediaError("it is no file")
    with open(source, "rb") if isinstance(source, str) else nullcontext(source) as file:
        size = file.seek(0, io.SEEK_END)
        mark, content = files.fingerprint(file, size, path), files.fingerprint(file, size, "")
        if size == 0:
            raise MediaError("the file is empty")
        if (listed := mp4.num_samples(file, size)) > 8 * size:  # MOV sound can have more than one sample per byte
            raise MediaError(f"its index lists {listed:,} pictures and sounds, and it has {size:,} bytes")
    with _open_readable(source) as container:
        if (number := len(container.streams)) > MAX_STREAMS:
            raise MediaError(f"it has {number} streams, more than {MAX_STREAMS}")
        codec = video_stream(container).codec_context
        if codec is not None and codec.width * codec.height > MAX_PIXELS:
            raise MediaError(f"its pictures have {codec.width} x {codec.height} pixels, more than {MAX_PIXELS:,}")
        first = _first_frame(container)
        rotation = round(first.rotation / 90) * 90 % 360
        width, height = (first.height, first.width) if rotation % 180 else (first.width, first.height)
        has_audio = len(container.streams.audio) > 0
    with _open_readable(source) as container:
        if isinstance(source, RangeFile) and video_stream(container).codec_context.name in _INDEXED:
            source.zero_ranges = mp4.media_data(source, source.size)
        times = _frame_times(container)
    start, span = float(times[0]), float(times[-1] - times[0])
    if span > MAX_DURATION_S:
        raise MediaError(f"its frames span {span / 3600:,.0f} hours, more than {MAX_DURATION_S / 3600:.0f}")
    return Probe(path, size, mark, content, width, height, rotation, has_audio, start, times - start)


def _first_frame(container: InputContainer) -> av.VideoFrame:
    reason = ""
    for packet in packets(container, _with_pixel_limit(video_stream(container))):
        try:
            for frame in packet.decode():
                return frame
        except av.error.DecoderNotFoundError as error:
            raise MediaError(f"cannot be decoded ({error.strerror})") from error
        except av.error.FFmpegError as error:  # a later packet may be intact
            reason = f" ({error.strerror})"
    raise MediaError(f"not one frame can be decoded{reason}")


def _with_pixel_limit(stream: VideoStream) -> VideoStream:
    """Limits decoded frames to MAX_PIXELS; a larger frame fails to decode."""
    if stream.codec_context is not None:  # None without a decoder
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _frame_times(container: InputContainer) -> Float[ndarray, " frames"]:
    stream = video_stream(container)
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
    """Decodes frames ``[first, last)`` in presentation order, one at a time.

    It seeks to a keyframe before the first frame and decodes forward. Frames with damaged data are left out, so the
    frame numbers may have gaps.

    Args:
        uri: path or URI of the video.
        info: the video's probe.
        first: first frame, 0-based.
        last: end of the range, exclusive.
        width: width of the scaled upright picture, given together with ``height``; not scaled by default.
        height: height of the scaled upright picture.
        only: frames to convert to RGB; all by default. The others are decoded but not converted.

    Yields:
        Frame number and upright RGB picture.

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
                    continue  # damaged timestamps may decrease
                shown = number
                picture = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BICUBIC")
                yield number, np.ascontiguousarray(np.rot90(picture, info.rotation // 90)) if info.rotation else picture
            return


def _numbered(container: InputContainer, info: Probe, first: int, back_s: float) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decoded frames with their numbers, from a keyframe at least ``back_s`` before frame ``first``, or from the start.

    AVI has no presentation times. If its frames are stored in decoding order, they are numbered by counting from the
    start.
    """
    stream = _with_pixel_limit(video_stream(container))
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
        except av.error.FFmpegError:  # not seekable
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
    """Decoded frames in presentation order; a damaged packet gives no frame."""
    for packet in packets(container, stream):
        try:
            yield from cast(Any, packet.decode())
        except av.error.FFmpegError:  # decoders raise many different errors
            continue
