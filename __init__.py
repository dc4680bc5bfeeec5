"""The package itself, in the folder above a checkout called affect, where Python takes the checkout for it."""

from pathlib import Path

__path__ = [str(Path(__file__).with_name("affect")), str(Path(__file__).parent)]

from affect.__init__ import *  # noqa: F403 -- what the package itself has
