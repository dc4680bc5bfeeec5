"""A file in a bucket, read by range: only the bytes that are asked for, each once a node.

What was read is kept under ``$AFFECT_CACHE/ranges`` in blocks, so that the three modalities of a clip, and a second
look at the same place, cost the bucket nothing; the oldest go when there are too many. A disk that cannot be written to
only makes it slower.
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

from affect.storage import files

BLOCK = 256 << 10
"""Bytes that are kept together, the least that is asked for."""
MAX_REQUEST = 4 << 20
AHEAD = 8
"""A request may be this part of what was read in one go before it: long reads need few requests, and what is fetched
beyond their end is at most an eighth of them and a block."""
MAX_HELD = 32
"""Blocks in memory."""
LIMIT = 4 << 30
"""Bytes on a node's disk."""
TIDY_EVERY = 256
"""Blocks written between two looks at the limit, on average."""


class RangeFile(io.RawIOBase):
    """A file in a bucket that can be read and sought.

    Args:
        uri: where it is.

    Raises:
        FileNotFoundError: it is missing.
        OSError: it cannot be reached or may not be read.
    """

    def __init__(self, uri: str) -> None:
        """Ask for its size and version; nothing is read."""
        system, path = files.resolve_parent(uri)
        with files.in_words(uri):
            info = system.info(path)
        self._uri, self.size, self._at = uri, int(info["size"]), 0
        self.hollow: Sequence[tuple[int, int]] = ()
        """Ranges that are not fetched, but read as zeros: for whoever needs a file's structure alone."""
        self._next, self._run = 0, 0  # block after the last one that was asked for; blocks that were read in one go
        self._held: OrderedDict[int, bytes] = OrderedDict()
        version = info.get("ETag") or info.get("mtime") or info.get("created")
        mark = hashlib.sha256(f"{uri}\0{self.size}\0{version}".encode()).hexdigest()[:24]
        self._folder = files.cache() / "ranges" / mark

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes, all to the end if negative; fewer only at the end."""
        end = self.size if size < 0 else min(self.size, self._at + size)
        parts = []
        while self._at < end:
            number, skipped = divmod(self._at, BLOCK)
            part = self._block(number)[skipped : skipped + end - self._at]
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def readall(self) -> bytes:
        """Read to the end."""
        return self.read()

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Read into a buffer."""
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def _block(self, number: int) -> bytes:
        if any(start <= number * BLOCK and (number + 1) * BLOCK <= end for start, end in self.hollow):
            return bytes(BLOCK)
        if number not in self._held:
            for at, content in self._fetched(number).items():
                self._held[at] = content
        self._held.move_to_end(number)
        while len(self._held) > MAX_HELD:
            self._held.popitem(last=False)
        self._run = self._run + 1 if number == self._next else self._run if number == self._next - 1 else 0
        self._next = number + 1
        return self._held[number]

    def _fetched(self, number: int) -> dict[int, bytes]:
        """A block from the node's cache, or with those after it from the bucket."""
        kept = self._kept(number)
        if kept is not None:
            return {number: kept}
        most = max(1, min(self._run // AHEAD, MAX_REQUEST // BLOCK))
        last = number + 1
        while last < number + most and last * BLOCK < self.size and self._kept(last) is None:
            last += 1
        start, end = number * BLOCK, min(self.size, last * BLOCK)
        content = files.read_range(self._uri, start, end)
        if len(content) != end - start:
            raise OSError(f"{self._uri}: {len(content)} bytes came where {end - start} were asked for")
        blocks = {number + i: content[i * BLOCK : (i + 1) * BLOCK] for i in range(last - number)}
        _keep(self._folder, blocks)
        return blocks

    def _kept(self, number: int) -> bytes | None:
        path = self._folder / str(number)
        try:
            content = path.read_bytes()
            os.utime(path)  # it was used: others go first
        except OSError:
            return None
        return content if len(content) == min(BLOCK, self.size - number * BLOCK) else None


def _keep(folder: Path, blocks: dict[int, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, content in blocks.items():
            temporary = folder / f"._tmp.{uuid.uuid4().hex}"
            temporary.write_bytes(content)
            temporary.replace(folder / str(number))
    except OSError:  # a full or read-only disk: the bucket is asked again
        shutil.rmtree(folder, ignore_errors=True)
    if random.random() * TIDY_EVERY < len(blocks):
        with suppress(OSError):  # the folder went away
            _tidy(folder.parent)


def _tidy(top: Path) -> None:
    """Where there is too much, delete the files that were used longest ago until half of the limit is free.

    Other processes write and tidy meanwhile: what vanishes under its hands is passed over.
    """
    found = []
    for folder in top.iterdir():
        sizes = []
        with suppress(OSError):  # it was tidied away, or is no folder
            for entry in folder.iterdir():
                with suppress(FileNotFoundError):  # a temporary file that has its name by now
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
