"""Memory that training frees stays with the process: large blocks come from the heap, not from the system."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes
import sys

import torch

from charter.training.heap import keep_freed_memory

class MallInfo(ctypes.Structure):  # glibc's malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

def from_system():
    read = ctypes.CDLL(None).mallinfo2
    read.restype = MallInfo
    return read().hblkhd

if sys.argv[1] == "keep":
    keep_freed_memory()
before = from_system()
block = torch.ones(30 << 18)
print((from_system() - before) >> 20)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")


def from_system(mode: str, **env: str) -> int:
    """MiB of a block of 30 that the system gave by itself."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode], env=os.environ | env, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_large_blocks_come_from_the_heap_which_keeps_what_is_freed():
    assert from_system("leave") == 30
    assert from_system("keep") == 0


def test_whoever_has_tuned_the_allocator_is_left_alone():
    assert from_system("keep", MALLOC_TRIM_THRESHOLD_="131072") == 30
