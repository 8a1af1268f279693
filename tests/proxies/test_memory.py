import subprocess
import sys

import pytest

from proxies.memory import keep_freed_memory

FAULTS = """
import resource, torch
from proxies.memory import keep_freed_memory
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
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_tensors_of_a_step_find_the_memory_of_the_last() -> None:
    assert _faults(kept=True) < 1000
    assert _faults(kept=False) > 4 * 1000
