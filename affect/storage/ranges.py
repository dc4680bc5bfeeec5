"""Files in a bucket read by byte range, with a block cache on each node's disk.

Blocks that were read are cached under ``$AFFECT_CACHE/ranges``, so that a clip's modalities and repeated reads cost one
download. The cache deletes the files that were used longest ago. Without a writable disk, reads are slower.
"""

import hashlib
import io
import os
import random
import shutil
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from affect import totals
from affect.storage import buckets, files

BLOCK = 256 << 10
"""Bytes of a cached block, the smallest request."""
MAX_REQUEST = 4 << 20
"""Bytes of the largest request."""
AHEAD = 8
"""A request reads ahead at most 1/AHEAD of the blocks that were read in sequence before it. Long reads need few
requests, and the bytes fetched past their end are at most an eighth of them and one block."""
MAX_HELD = 32
"""Most blocks in memory, per file."""
LIMIT = 4 << 30
"""Most bytes of the cache on a node's disk."""
TIDY_EVERY = 256
"""Mean number of written blocks between two checks of the limit."""


class RangeFile(io.RawIOBase):
    """Readable and seekable file in a bucket.

    Args:
        uri: URI of the object.

    Raises:
        FileNotFoundError: the object is missing.
        OSError: the bucket cannot be reached, or the object may not be read.
    """

    def __init__(self, uri: str) -> None:
        """Requests the object's size and version; no content is read."""
        system, path = files.resolve_parent(uri)
        with buckets.explain_errors(uri):
            info = system.info(path)
        self._uri, self.size, self._at = uri, int(info["size"]), 0
        self.zero_ranges: Sequence[tuple[int, int]] = ()
        """Byte ranges whose blocks read as zeros and are not fetched, for readers that need a file's structure only."""
        self._next, self._run = 0, 0  # block after the last read one; number of blocks read in sequence
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        version = info.get("ETag") or info.get("mtime") or info.get("created")
        mark = hashlib.sha256(f"{uri}\0{self.size}\0{version}".encode()).hexdigest()[:24]
        self._folder = files.cache() / "ranges" / mark

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Position of the next read, in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Sets the position; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Reads ``size`` bytes, or fewer at the end of the file; reads to the end if ``size`` is negative."""
        end = self.size if size < 0 else min(self.size, self._at + size)
        parts = []
        while self._at < end:
            number, skipped = divmod(self._at, BLOCK)
            part = self._block(number)[skipped : skipped + end - self._at]
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def readall(self) -> bytes:
        """Reads to the end."""
        return self.read()

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Reads into a buffer."""
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def _block(self, number: int) -> bytes:
        if any(start <= number * BLOCK and (number + 1) * BLOCK <= end for start, end in self.zero_ranges):
            return bytes(BLOCK)
        if number not in self._blocks:
            for at, content in self._fetch(number).items():
                self._blocks[at] = content
        self._blocks.move_to_end(number)
        while len(self._blocks) > MAX_HELD:
            self._blocks.popitem(last=False)
        self._run = self._run + 1 if number == self._next else self._run if number == self._next - 1 else 0
        self._next = number + 1
        return self._blocks[number]

    def _fetch(self, number: int) -> dict[int, bytes]:
        """Reads a block from the node's cache, or it and the blocks after it from the bucket."""
        cached = self._cached(number)
        if cached is not None:
            return {number: cached}
        most = max(1, min(self._run // AHEAD, MAX_REQUEST // BLOCK))
        last = number + 1
        while last < number + most and last * BLOCK < self.size and self._cached(last) is None:
            last += 1
        start, end = number * BLOCK, min(self.size, last * BLOCK)
        content = files.read_range(self._uri, start, end)
        totals.count(totals.READ_BYTES, float(len(content)))
        if len(content) != end - start:
            raise OSError(f"{self._uri}: received {len(content)} bytes instead of {end - start}")
        blocks = {number + i: content[i * BLOCK : (i + 1) * BLOCK] for i in range(last - number)}
        _cache_blocks(self._folder, blocks)
        return blocks

    def _cached(self, number: int) -> bytes | None:
        path = self._folder / str(number)
        try:
            content = path.read_bytes()
            os.utime(path)  # recently used files are deleted last
        except OSError:
            return None
        return content if len(content) == min(BLOCK, self.size - number * BLOCK) else None


def _cache_blocks(folder: Path, blocks: dict[int, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, content in blocks.items():
            temporary = folder / f"._tmp.{uuid.uuid4().hex}"
            temporary.write_bytes(content)
            temporary.replace(folder / str(number))
    except OSError:  # a full or read-only disk: later reads go to the bucket again
        shutil.rmtree(folder, ignore_errors=True)
    if random.random() * TIDY_EVERY < len(blocks):
        with suppress(OSError):  # another process deleted the folder
            _tidy(folder.parent)


def _tidy(top: Path) -> None:
    """If the cache exceeds LIMIT, delete the files that were used longest ago until half of LIMIT is free.

    Other processes write and delete at the same time, so missing files are skipped.
    """
    found = []
    for folder in top.iterdir():
        sizes = []
        with suppress(OSError):  # it was deleted, or is not a folder
            for entry in folder.iterdir():
                with suppress(FileNotFoundError):  # a temporary file that was renamed meanwhile
                    sizes.append(entry.stat())
        found.append((max((s.st_mtime for s in sizes), default=0.0), sum(s.st_size for s in sizes), folder))
    total = sum(size for _, size, _ in found)
    if total <= LIMIT:
        return
    for _, size, folder in sorted(found):
        shutil.rmtree(folder, ignore_errors=True)
        total -= size
        if total <= LIMIT // 2:
            return
