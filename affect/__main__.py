"""Prints installed versions and available commands: ``python -m affect``."""

import argparse
import platform
from importlib import metadata

PACKAGES = ("torch", "transformers", "ray", "mediapipe", "av", "pyarrow")


def main() -> None:
    """Prints the commands, or with ``--version`` the versions of this package and its main dependencies."""
    described = metadata.metadata("affect")
    commands = sorted(e.name for e in metadata.entry_points(group="console_scripts") if e.value.startswith("affect."))
    parser = argparse.ArgumentParser("affect", description=f"{described['Summary']} Commands: {', '.join(commands)}.")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    text = f"affect {metadata.version('affect')} (Python {platform.python_version()}, {versions})"
    parser.add_argument("--version", action="version", version=text)
    parser.parse_args()
    parser.print_help()


if __name__ == "__main__":
    main()
