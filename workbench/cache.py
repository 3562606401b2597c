"""Where what can be made again is kept: unpacked models and encoded corpora."""

import os
from pathlib import Path


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/interp-workbench`, or the same under `~/.cache`; all of it may be deleted."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "interp-workbench"
