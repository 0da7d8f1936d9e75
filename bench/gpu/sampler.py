"""Clock, power and temperature of the GPU while others work on it."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import threading
import time
from typing import NamedTuple

from bench.gpu.environment import device_index
from bench.gpu.watchdog import end_group

PERIOD_MS = 100
FIELDS = "clocks.sm,power.draw,temperature.gpu"
LARGEST_DROP = 0.03
"""Share of the clock that may be lost during a contest before its figures are flagged."""


class Reading(NamedTuple):
    """One look: `time.monotonic`, MHz, W, degrees Celsius."""

    at: float
    sm_mhz: float
    power_w: float
    celsius: float


class Load(NamedTuple):
    """What a window of readings says. flagged: the clock fell by more than LARGEST_DROP."""

    readings: int
    sm_mhz: float
    sm_mhz_low: float
    power_w: float
    celsius: float
    flagged: bool


def parse_line(line: str, at: float) -> Reading | None:
    """A line of nvidia-smi's CSV; None when it says something else."""
    parts = line.split(",")
    if len(parts) != len(FIELDS.split(",")):
        return None
    try:
        return Reading(at, *(float(part) for part in parts))
    except ValueError:  # "[N/A]"
        return None


def summarize(readings: list[Reading], start: float, end: float) -> Load | None:
    """The readings within a window; None when there are none.

    The first one may still be from before the clock rose, so it does not count if there are others.
    """
    inside = [r for r in readings if start <= r.at <= end]
    inside = inside[1:] or inside
    if not inside:
        return None
    clocks = [r.sm_mhz for r in inside]
    low, high = min(clocks), max(clocks)
    return Load(
        readings=len(inside),
        sm_mhz=statistics.median(clocks),
        sm_mhz_low=low,
        power_w=statistics.median(r.power_w for r in inside),
        celsius=max(r.celsius for r in inside),
        flagged=low < (1 - LARGEST_DROP) * high,
    )


class Sampler:
    """Reads the GPU's state in the background where nvidia-smi exists; knows nothing elsewhere."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Sampler:
        if shutil.which("nvidia-smi") is None:
            return self
        query = ("-i", device_index(), f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits")
        self._process = process = subprocess.Popen(
            ["nvidia-smi", *query, "-lms", str(PERIOD_MS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                reading = parse_line(line, time.monotonic())
                if reading is not None:
                    self.readings.append(reading)

        threading.Thread(target=read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end_group(self._process)

    def load(self, start: float, end: float) -> Load | None:
        """The GPU between two times."""
        return summarize(list(self.readings), start, end)
