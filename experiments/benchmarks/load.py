"""How much of the machine others take while something is timed: figures of a busy machine are no figures."""

import os
import time


class OthersLoad:
    """Measures CPU load since construction."""

    def __init__(self):
        self._busy, self._own, self._started = _busy_seconds(), time.process_time(), time.perf_counter()

    def cores(self, helpers_seconds=0.0):
        """Returns how many cores other processes, and the machine's own host, kept busy on average, or None.

        Args:
            helpers_seconds: for which processes of one's own have worked since then.

        The system counts in hundredths of a second, so of turns shorter than a second it says little.
        """
        if self._busy is None:
            return None
        others = (_busy_seconds() - self._busy) - (time.process_time() - self._own) - helpers_seconds
        return max(0.0, others / (time.perf_counter() - self._started))


def _busy_seconds():
    """Returns the seconds that all processors together have worked, or None where Linux does not say."""
    try:
        with open("/proc/stat", encoding="utf-8") as file:
            user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + sum(interrupts_and_stolen)) / os.sysconf("SC_CLK_TCK")
