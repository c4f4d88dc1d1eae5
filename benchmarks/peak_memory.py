"""Peak memory of a process. Imports nothing that would add to it."""

import resource
import sys
from pathlib import Path


def peak_megabytes() -> float:
    """Return the peak memory of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage on Linux includes the parent program
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1024 if sys.platform != "darwin" else 1024**2)
