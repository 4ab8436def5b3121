"""Memory that training frees is used again, without new pages from the system."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import sys

import torch

from charter.training.heap import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    [torch.ones(size << 18) for size in range(1, 20)]  # 1, 2, ... MiB
    [torch.ones(30 << 18) for _ in range(3)]

for _ in range(3):
    step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


def faults(mode: str, **env: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode], env=os.environ | env, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
def test_kept_memory_costs_no_new_pages():
    assert faults("leave") > 1000, "the system gives the pages anew each time"
    assert faults("keep") < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
def test_whoever_has_tuned_the_allocator_is_left_alone():
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072") > 1000
