import os
import subprocess
import sys

import pytest

from mixopt.proxies.memory import keep_freed_memory

FAULTS = """
import resource, torch
from mixopt.proxies.memory import keep_freed_memory
torch.set_num_threads(1)
if {kept}:
    assert keep_freed_memory()
def work():
    [torch.ones(1 << 20) for _ in range(8)]
for _ in range(5):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(kept: bool) -> int:
    command = [sys.executable, "-c", FAULTS.format(kept=kept)]
    # by itself the C library gives blocks back or not as the heap happens to lie; told the
    # threshold that it begins with, it always does
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_tensors_of_a_step_find_the_memory_of_the_last() -> None:
    tensors = 20 * 8
    assert _faults(kept=True) < tensors / 2
    assert _faults(kept=False) >= tensors  # 1,024 times that, unless the system's pages are huge
