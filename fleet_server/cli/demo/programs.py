"""Programs that end with us: in order if there is time, at once if we are killed.

Each gets a kill signal from the kernel when this process dies, however it dies; a directory given to
:func:`removed_afterwards` is removed then too, by a shell that waits for the end of a pipe.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
POLL_S: Final = 0.05
LOG_LINES_SHOWN: Final = 12
LOG_BYTES_READ: Final = 16_384
# The kernel closes our pipe a moment before it kills our children, which may still write.
REMOVE_SCRIPT: Final = """
cat >/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf -- "$1" 2>/dev/null
  sleep 0.2
  [ -e "$1" ] || exit 0
done
"""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class ProgramError(Exception):
    """A program is not there, did not get ready, or ended by itself; the message shows what it logged last."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running program."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def check(self) -> None:
        """Raises ProgramError: it has ended."""
        if self.process.poll() is not None:
            raise ProgramError(f"the {self.name} ended with {self.process.returncode}\n{self.last_words()}")

    def wait_until(self, ready: Callable[[], bool], *, seconds_max: float) -> None:
        """Wait until *ready*. Raises ProgramError: it ended first, or took too long."""
        deadline = time.monotonic() + seconds_max
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProgramError(f"the {self.name} was not ready in {seconds_max:g} s\n{self.last_words()}")
            time.sleep(POLL_S)

    def stop(self, *, seconds_max: float) -> bool:
        """Ask it to end, and end it if it does not; whether it ended by itself, without an error."""
        self.process.terminate()
        try:
            return self.process.wait(seconds_max) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False

    def rss_bytes(self) -> int:
        """Its resident memory now, 0 if it has ended."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:")), 0)

    def last_words(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_BYTES_READ))
            lines = file.read().decode("utf-8", "backslashreplace").splitlines()
            return "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:])
        return ""


class Programs:
    """What was started, ended in the opposite order."""

    def __init__(self) -> None:
        self._running: list[tuple[Program, float]] = []

    def start(self, name: str, command: Sequence[str], *, directory: Path, log: Path, stop_s_max: float) -> Program:
        """Start *command* in *directory*; it is ended with the others, and killed after *stop_s_max*.

        Must be called by the main thread: the kernel's signal comes at the end of the thread that started it.
        """
        parent = os.getpid()

        def die_with_us() -> None:
            _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

        with log.open("ab") as sink:
            process = subprocess.Popen(  # noqa: S603 - our own programs, and the broker that was found
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,  # the terminal's Ctrl-C is ours, so that they end in order
                preexec_fn=die_with_us,  # noqa: PLW1509 - one thread, one system call
            )
        program = Program(name, process, log)
        self._running.append((program, stop_s_max))
        return program

    def check(self) -> None:
        """Raises ProgramError: one of them has ended."""
        for program, _ in self._running:
            program.check()

    def stop(self, program: Program) -> bool:
        """End one of them now; see :meth:`Program.stop`."""
        entry = next(entry for entry in self._running if entry[0] is program)
        self._running.remove(entry)
        return program.stop(seconds_max=entry[1])

    def stop_all(self) -> None:
        """End the last first."""
        while self._running:
            self.stop(self._running[-1][0])


@contextmanager
def running() -> Iterator[Programs]:
    """Programs that are ended with the block whatever happens in it."""
    programs = Programs()
    try:
        yield programs
    finally:
        programs.stop_all()


@contextmanager
def removed_afterwards(prefix: str) -> Iterator[Path]:
    """A new private directory; removed with the block, and also if this process is killed."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    remover = subprocess.Popen(  # noqa: S603
        ["/bin/sh", "-c", REMOVE_SCRIPT, "remover", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        remover.communicate()
