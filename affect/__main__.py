"""What is installed, and which commands there are: ``python -m affect``."""

import argparse
import platform
from importlib import metadata

PACKAGES = ("torch", "transformers", "ray", "mediapipe", "av", "pyarrow")


def main() -> None:
    """Say the version, and of what it depends on."""
    described = metadata.metadata("affect")
    commands = sorted(e.name for e in metadata.entry_points(group="console_scripts") if e.value.startswith("affect."))
    parser = argparse.ArgumentParser("affect", description=f"{described['Summary']} Commands: {', '.join(commands)}.")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    said = f"affect {metadata.version('affect')} (Python {platform.python_version()}, {versions})"
    parser.add_argument("--version", action="version", version=said)
    parser.parse_args()
    parser.print_help()


if __name__ == "__main__":
    main()
