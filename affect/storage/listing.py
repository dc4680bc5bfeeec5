"""Listings of folders and of buckets, one object at a time."""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Row = tuple[str, int, str]
"""Path relative to the folder or prefix, size in bytes, version: modification time or ETag."""
NUM_THREADS = 32
"""Parts of a bucket that are listed at the same time."""
PAGE = 1000
"""Most keys of an answer, by the protocol."""
_LAST = "\U0010ffff"
"""Sorts behind every character of a key."""


def walk_folder(folder: str) -> Iterator[Row]:
    """Lists a folder on a disk; fsspec takes eight times as long for tens of thousands of files.

    Links are followed, except links to a folder that contains them.
    """
    return _walk_folder(folder, "", os.path.realpath(folder), frozenset())


def _walk_folder(folder: str, before: str, here: str, inside: frozenset[str]) -> Iterator[tuple[str, int, str]]:
    """Lists a folder.

    Args:
        folder: the folder.
        before: prefix of the relative paths.
        here: the folder's path with all links resolved.
        inside: resolved paths of the folders that contain it.
    """
    try:
        entries = sorted(os.scandir(folder), key=_sort_key)
    except FileNotFoundError:  # another process deleted it meanwhile
        return
    for entry in entries:
        try:
            info = entry.stat()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):  # deleted meanwhile, or a broken link
                raise
            continue
        if stat.S_ISDIR(info.st_mode):
            target = os.path.realpath(entry.path) if entry.is_symlink() else f"{here}/{entry.name}"
            if target != here and target not in inside:
                yield from _walk_folder(entry.path, f"{before}{entry.name}/", target, inside | {here})
        else:
            yield f"{before}{entry.name}", info.st_size, str(info.st_mtime)


def _sort_key(entry: os.DirEntry[str]) -> str:
    """Name as it stands in paths: those of a folder go on behind a slash."""
    try:
        return f"{entry.name}/" if entry.is_dir() else entry.name
    except OSError:  # a link to itself
        return entry.name


def walk_bucket(system: Any, bucket: str, prefix: str) -> Iterator[Row]:  # noqa: ANN401 -- s3fs has no types
    """Lists the objects of a bucket in the order of their keys; a long listing in parallel.

    An answer has at most 1,000 keys, and the next ones can be asked for only then. Keys that are more are therefore
    split by the first character in which they differ, for which one key of each is asked.

    Args:
        system: file system of s3fs.
        bucket: its name.
        prefix: first characters of the keys; empty for all.
    """

    def ask(start: str, after: str = "", most: int = PAGE) -> tuple[list[dict[str, Any]], bool]:
        """First objects whose keys begin with ``start`` and come after ``after``, and whether there are more."""
        more = {"StartAfter": after} if after else {}
        answer = system.call_s3("list_objects_v2", Bucket=bucket, Prefix=start, MaxKeys=most, **more)
        return answer.get("Contents", []), answer.get("IsTruncated", False)

    def rows(objects: list[dict[str, Any]]) -> list[Row]:
        """Objects as rows, without the empty ones by which a bucket's console marks a folder."""
        named = [(found["Key"][len(prefix) :], found["Size"], str(found["ETag"])) for found in objects]
        return [row for row in named if row[0] and not row[0].endswith("/")]

    def part(start: str) -> tuple[list[Row], list[str]]:
        """Objects whose keys begin with ``start``, or the first characters by which to list them."""
        objects, more = ask(start)
        if not more:
            return rows(objects), []
        base = os.path.commonprefix([objects[0]["Key"], objects[-1]["Key"]])
        while beyond := ask(start, base + _LAST, 1)[0]:
            base = os.path.commonprefix([base, beyond[0]["Key"]])
        at = len(base)
        key: str = next(found["Key"] for found in objects if len(found["Key"]) > at)
        splits = [key[: at + 1]]
        while beyond := ask(base, splits[-1] + _LAST, 1)[0]:
            splits.append(beyond[0]["Key"][: at + 1])
        return rows([found for found in objects if len(found["Key"]) == at]), splits

    with ThreadPoolExecutor(NUM_THREADS) as threads:
        waiting = deque([threads.submit(part, prefix)])
        while waiting:
            found, splits = waiting.popleft().result()
            yield from found
            waiting.extendleft(reversed([threads.submit(part, start) for start in splits]))
