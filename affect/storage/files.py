"""Files by local path or bucket URI: listing, reading, and atomic writing, so that a present file is complete."""

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from functools import lru_cache
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from affect.storage import buckets, listing

MIB = 1 << 20


@lru_cache(maxsize=64)
def resolve(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """File system of a path or URI, and the path within it.

    Args:
        uri: a local path (made absolute), or ``s3://bucket/prefix``.

    Raises:
        ValueError: the protocol is unknown.
    """
    if "://" not in uri:
        uri = str(Path(uri).absolute())
    return _open(uri, buckets.OPTIONS)


def _open(uri: str, bucket: dict[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
    options = bucket if uri.startswith("s3://") else {}
    try:
        # a cached listing would hide files that other processes write later
        return fsspec.core.url_to_fs(uri, use_listings_cache=False, **options)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{uri}: {error}; give a folder or s3://BUCKET/PREFIX") from error


def check_readable(uri: str) -> None:
    """Checks that a bucket exists and may be listed; local paths are not checked.

    Raises:
        OSError: the bucket cannot be listed; the message says why.
        ValueError: the protocol is unknown.
    """
    system, path = _open(absolute(uri), buckets.CHECK_OPTIONS)
    if hasattr(system, "call_s3"):
        bucket, _, prefix = path.partition("/")
        with buckets.explain_errors(uri):
            system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)


def check_writable(uri: str) -> None:
    """Checks that a bucket may be written to, by writing and deleting an empty object; local paths are not checked.

    Raises:
        OSError: the bucket cannot be written to; the message says why.
    """
    if "://" in uri:
        system, path = _open(uri, buckets.CHECK_OPTIONS)
        mark = join(path, f"._tmp.{uuid.uuid4().hex}")
        with buckets.explain_errors(uri):
            system.pipe_file(mark, b"")
            system.rm_file(mark)


def absolute(uri: str) -> str:
    """Path made absolute, so that it does not depend on the working directory; URIs are returned unchanged."""
    return uri if "://" in uri else str(Path(uri).absolute())


def join(uri: str, *parts: str) -> str:
    """Path or URI below a folder or prefix."""
    return "/".join([uri.rstrip("/"), *parts])


def exists(uri: str) -> bool:
    """Whether an object is present."""
    system, path = resolve_parent(uri)
    with buckets.explain_errors(uri):
        return system.exists(path)


def resolve_parent(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Like :func:`resolve`; it resolves the parent folder, so that the cache holds folders and not single files."""
    parent, _, name = absolute(uri).rpartition("/")
    if not parent or parent.endswith(":/"):  # "/name" and "s3://name"
        return resolve(absolute(uri))
    system, path = resolve(parent)
    return system, f"{path}/{name}"


def walk(uri: str) -> Iterator[tuple[str, int, str]]:
    """Lists every object below a folder or prefix as ``(relative path, bytes, version)``, in a fixed order.

    A missing folder has no objects. A single file is listed under its name. The version is the modification time on a
    disk and the ETag in a bucket.
    """
    system, root = resolve(absolute(uri))
    if isinstance(system, LocalFileSystem) and os.path.isdir(root):
        yield from listing.walk_folder(root)
        return
    with buckets.explain_errors(uri):
        if hasattr(system, "call_s3"):
            bucket, _, prefix = root.partition("/")
            empty = True
            for row in listing.walk_bucket(system, bucket, f"{prefix}/" if prefix else ""):
                empty = False
                yield row
            if not empty:
                return
        found = system.find(root, detail=True)
    for path, info in sorted(found.items()):
        name = path[len(root) :].lstrip("/") or path.rpartition("/")[2]
        if name and not name.endswith("/"):
            yield name, info["size"], str(info.get("ETag") or info.get("mtime"))


def read(uri: str) -> bytes:
    """Reads all bytes of an object.

    Raises:
        FileNotFoundError: the object is missing.
    """
    system, path = resolve_parent(uri)
    with buckets.explain_errors(uri):
        return system.cat_file(path)


def fetch(uri: str, path: Path) -> None:
    """Copies an object to a local path without holding it in memory.

    Raises:
        FileNotFoundError: the object is missing.
    """
    system, source = resolve_parent(uri)
    with buckets.explain_errors(uri):
        system.get_file(source, str(path))


def read_text(uri: str) -> str:
    """Reads a UTF-8 text file without its byte order mark.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not UTF-8; the message has the position of the first wrong byte.
    """
    try:
        return read(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{uri}: no text file (byte {error.start} is not UTF-8)") from error


def read_range(uri: str, start: int, end: int) -> bytes:
    """Reads bytes ``[start, end)`` of an object by one request.

    Raises:
        FileNotFoundError: the object is missing.
    """
    system, path = resolve_parent(uri)
    with buckets.explain_errors(uri):
        return system.cat_file(path, start=start, end=end)


def read_tail(uri: str, size: int) -> bytes:
    """Reads the last ``size`` bytes of an object, or all of a shorter one, by one request.

    Raises:
        FileNotFoundError: the object is missing.
    """
    if "://" not in uri:
        with open(uri, "rb") as file:  # fsspec is slower, and tens of thousands of tails are read
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read()
    system, path = resolve_parent(uri)
    with buckets.explain_errors(uri):
        return system.cat_file(path, start=-size)


def write(uri: str, content: bytes, *, replace: bool = True) -> bool:
    """Writes an object atomically: by one PUT in a bucket, by a rename on a disk.

    Args:
        uri: path or URI.
        content: all bytes of the object.
        replace: whether an object that is already present is replaced. False needs conditional writes of the bucket or
            hard links of the disk; without them the object is replaced all the same.

    Returns:
        True if the object was written, False if the present one was kept.

    Raises:
        OSError: the place cannot be written to; the message has the path and the number of bytes.
    """
    system, path = resolve_parent(uri)
    if not isinstance(system, LocalFileSystem):
        with buckets.explain_errors(uri):
            return _put(system, path, content, replace)
    try:
        return _write_local(Path(path), content, replace)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {len(content)} bytes ({error.strerror})", path) from error


def _put(system: fsspec.AbstractFileSystem, path: str, content: bytes, replace: bool) -> bool:
    if replace or not hasattr(system, "call_s3"):
        system.pipe_file(path, content)
        return True
    try:
        system.pipe_file(path, content, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        if buckets.error_code(error) == "PreconditionFailed":
            return False
        if error.errno != errno.ENOSYS:  # a server without conditional writes
            raise
        system.pipe_file(path, content)
    return True


def _write_local(path: Path, content: bytes, replace: bool) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"._tmp.{uuid.uuid4().hex}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # the umask limits the permissions
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if not replace:
            try:
                os.link(temporary, path)
                return True
            except FileExistsError:
                if path.exists():
                    return False  # otherwise it is a broken link
            except OSError:  # a file system without hard links
                pass
        os.replace(temporary, path)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def is_unwritable(error: BaseException) -> bool:
    """Whether an error is of a place that is read-only, full, over quota or forbidden: every other write fails, too."""
    return isinstance(error, PermissionError) or getattr(error, "errno", None) in (
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
    )


def delete(uri: str) -> None:
    """Deletes an object if it is present."""
    system, path = resolve_parent(uri)
    with buckets.explain_errors(uri):
        if system.exists(path):
            system.rm_file(path)


def delete_folder(uri: str) -> None:
    """Deletes a folder and all its files, if it is present."""
    system, path = resolve(uri)
    with buckets.explain_errors(uri):
        if system.exists(path):
            system.rm(path, recursive=True)


def cache() -> Path:
    """Folder of downloaded files: ``$AFFECT_CACHE``, else ``~/.cache/affect``."""
    return Path(os.environ.get("AFFECT_CACHE") or Path.home() / ".cache" / "affect")


def fingerprint(file: BufferedIOBase | RawIOBase, size: int, name: str) -> str:
    """Hash of a file's name, size and first and last MiB, 12 hex digits.

    Args:
        file: the open file.
        size: its size in bytes.
        name: its path relative to its folder, or empty for a hash that does not depend on the name.
    """
    found = hashlib.sha256(f"{name}\0{size}\0".encode())
    for start in (0, max(0, size - MIB)):
        file.seek(start)
        found.update(file.read(MIB) or b"")
    return found.hexdigest()[:12]


def digest(folder: Path) -> str:
    """Hash of the names and contents of all files in a local folder except hidden ones, 16 hex digits."""
    found = sorted(
        p for p in folder.rglob("*") if p.is_file() and not any(n[0] == "." for n in p.relative_to(folder).parts)
    )
    return _digest(tuple((str(p.relative_to(folder)), str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in found))


@lru_cache(maxsize=16)
def _digest(found: tuple[tuple[str, str, int, int], ...]) -> str:
    """Hash of files ``(name, path, size, mtime)``; cached, so that unchanged files are read once."""
    total = hashlib.sha256()
    for name, path, _, _ in found:
        total.update(f"{name}\0".encode())
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]
