"""Runs a command as a process of its own, and says how long it took, what it cost and how much memory it had.

A child's peak memory, as the kernel counts it, is at least that of the process it was forked from. So the command is
started by this file, run as a script in an interpreter that has loaded nothing, and not by the driver, which has.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Measured:
    """What one run took."""

    wall: float  # seconds
    cpu: float  # seconds, user and system, with all children that were waited for
    peak: int  # bytes, resident, of the largest process


class Failed(Exception):
    """A measured command that did not exit with 0, with the end of what it said."""


def run(command: list[str]) -> tuple[Measured, str]:
    """Runs the command to its end. Returns what it took, and its standard output."""
    with running(command) as job:
        return job.end()


class Running:
    """A measured command that has been started."""

    def __init__(self, launcher: subprocess.Popen, command: list[str], report: str, output: str, errors: str):
        self.launcher, self.command = launcher, command
        self.report, self.output, self.errors = report, output, errors

    def over(self) -> bool:
        return self.launcher.poll() is not None

    def stop(self) -> tuple[Measured, str]:
        """Asks it to stop, as an operator does with SIGTERM, and waits."""
        self.launcher.terminate()
        return self.end()

    def end(self) -> tuple[Measured, str]:
        """Waits for its end. Returns what it took, and its standard output."""
        if self.launcher.wait() != 0:
            raise Failed(f"{' '.join(self.command)}\ncould not be measured")
        with open(self.report) as f:
            said = json.load(f)
        with open(self.output) as f:
            text = f.read()
        if said["status"] != 0:
            with open(self.errors) as f:
                raise Failed(f"{' '.join(self.command)}\nended with {said['status']}:\n{(text + f.read())[-4000:]}")
        return Measured(**said["measured"]), text


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[Running]:
    """Starts the command; whatever happens, it does not outlive the block."""
    os.sync()  # what the last run wrote is not written out at this one's expense
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("report", "output", "errors")]
        launcher = subprocess.Popen([sys.executable, "-I", "-S", __file__, *files, *command])
        try:
            yield Running(launcher, command, *files)
        finally:
            if launcher.poll() is None:
                launcher.terminate()
            launcher.wait()


def launch(report: str, output: str, errors: str, command: list[str]) -> None:
    """The script: starts the command, waits, writes the report."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [(os.POSIX_SPAWN_OPEN, 1, output, flags, 0o644), (os.POSIX_SPAWN_OPEN, 2, errors, flags, 0o644)]
    start = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=files)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    measured = Measured(wall=wall, cpu=usage.ru_utime + usage.ru_stime, peak=usage.ru_maxrss * unit)
    with open(report, "w") as f:
        json.dump({"status": os.waitstatus_to_exitcode(status), "measured": asdict(measured)}, f)


if __name__ == "__main__":
    launch(*sys.argv[1:4], sys.argv[4:])
