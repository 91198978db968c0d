"""A program may fork at any moment: its children can query the devices, too."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import os, sys, threading, time, types
started = threading.Event()

class Slow(types.ModuleType):
    NVMLError = OSError
    lock = threading.Lock()
    def nvmlInit(self):
        with self.lock:
            started.set()
            time.sleep(0.2)
        raise OSError("no driver")

sys.modules["pynvml"] = Slow("pynvml")
from b10_transfer.environment.cuda import find
thread = threading.Thread(target=find, args=({},))
thread.start()
started.wait()
child = os.fork()
if not child:
    find({})
    os._exit(0)
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_child_forked_during_a_query_of_nvml_can_query_it() -> None:
    subprocess.run([sys.executable, "-c", _PROGRAM], check=True, timeout=30)
