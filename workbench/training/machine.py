"""What the machine that trains is told, and asked."""

import contextlib
import ctypes
import sys
from pathlib import Path


def keep_freed_memory() -> None:
    """Have glibc reuse large blocks: without this every activation is mapped and zeroed anew each step."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def has_amx() -> bool:
    """Whether the processor multiplies matrices in bfloat16 faster than in float32."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
