"""How much memory this process has needed."""

import re
import resource
import sys


def resident_peak():
    """Returns the largest number of bytes of memory that this process has had at once.

    Linux's own mark of the process is read where there is one: `ru_maxrss` of a new process starts from what its
    parent had when it started it.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            return int(re.search(r"^VmHWM:\s*(\d+) kB$", status.read(), re.MULTILINE)[1]) * 1024
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
