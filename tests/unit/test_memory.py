"""Freed memory is kept while it is asked for, and given back afterwards."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
from napari_mambamic.memory import freed_memory_kept

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def use(count):
    blocks = [np.ones(1 << 20) for _ in range(count)]  # 8 MiB each

start = resident()
with freed_memory_kept():
    with freed_memory_kept():
        use(20)
    kept = resident() - start
print(kept >> 20, (resident() - start) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no mallopt")
def test_freed_memory_is_kept_inside_and_given_back_at_the_end():
    command = [sys.executable, "-c", SCRIPT]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kept, after = map(int, said.split())
    assert kept > 100
    assert after < 20
