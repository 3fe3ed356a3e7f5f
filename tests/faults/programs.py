"""Processes that are killed, stopped and started again; clocks that lie."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
STOP_S_MAX: Final = 20.0
CRASHES: Final = frozenset({-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGILL})
FAKETIME_LIBRARIES: Final = ("/usr/lib", "/usr/local/lib", "/lib")


@dataclass(slots=True)
class Program:
    """One program of the product, with its log; at most one process of it lives."""

    name: str
    argv: Sequence[str]
    log_file: Path
    environment: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether a process of it lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def crashed(self) -> bool:
        """Whether it ended by a mistake of its own in the machine's memory, and nobody has started it again."""
        return self._process is not None and self._process.poll() in CRASHES

    @property
    def pid(self) -> int:
        """Of the living process."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    def start(self) -> None:
        """A new process."""
        assert not self.running, f"{self.name} runs already"
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                cwd=ROOT,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """As the power goes; a no-op if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """In order, by SIGTERM; return its exit code. Raises TimeoutError: it would not go, and was killed."""
        assert self._process is not None, f"{self.name} does not run"
        process, self._process = self._process, None
        process.terminate()
        try:
            return process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise TimeoutError(f"{self.name} did not stop within {STOP_S_MAX} s of SIGTERM") from None

    def wait(self, seconds_max: float) -> int:
        """Its exit code, once it has ended by itself. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        code = self._process.wait(seconds_max)
        self._process = None
        return code

    def freeze(self) -> None:
        """SIGSTOP: it is there, and does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """All that it has said so far."""
        return self.log_file.read_text(encoding="utf-8", errors="backslashreplace") if self.log_file.exists() else ""


def why_no_disks() -> str | None:
    """Why no small file system can be mounted here; None if one can."""
    if os.geteuid() != 0:
        return "needs root to mount small file systems"
    if shutil.which("mount") is None:
        return "no mount on this machine"
    return None


def faketime_library() -> Path | None:
    """What makes a process believe another time (Debian's libfaketime)."""
    for base in FAKETIME_LIBRARIES:
        for found in (
            *Path(base).glob("*/faketime/libfaketimeMT.so.1"),
            *Path(base).glob("faketime/libfaketimeMT.so.1"),
        ):
            return found
    return None


def why_no_clocks() -> str | None:
    """Why no clock can be made to lie here; None if one can."""
    return None if faketime_library() else "needs Debian's faketime"


class LyingClock:
    """A process's wall clock, moved by what a file says, while it runs too; its monotonic clocks tell the truth."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def environment(self) -> Mapping[str, str]:
        """To start a process with."""
        library = faketime_library()
        assert library is not None
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def say(self, ahead_s: int) -> None:
        """From now on the clock is so far ahead of the truth, or behind it."""
        partial = self._file.with_suffix(".new")
        partial.write_text(f"{ahead_s:+d}\n", encoding="ascii")
        partial.rename(self._file)

    def say_since_epoch(self, seconds: int) -> None:
        """From now on the clock says so much since 1970, as a board without a battery does."""
        self.say(seconds - int(time.time()))
