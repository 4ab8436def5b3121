"""Keep what is freed: each step on a CPU wants the same memory again, and fresh pages cost a twentieth of its time."""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
LARGEST = 32 << 20  # bytes; glibc takes no higher threshold


def keep_freed_memory() -> None:
    """Tell glibc's allocator to give nothing back to the system. Others, and whoever has tuned it, are left alone."""
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    tuned = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if tuned or not hasattr(libc, "gnu_get_libc_version"):
        return
    assert libc is not None
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(M_TOP_PAD, 2 * LARGEST)
