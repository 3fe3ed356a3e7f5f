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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
class Part:
    """A program that can be started again and again. ``stop_s_max``: it is killed if it takes longer to end."""

    name: str
    command: Sequence[str]
    directory: Path
    log: Path
    stop_s_max: float
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Program:
    """A running part."""

    part: Part
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        """Its part's."""
        return self.part.name

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

    def wait(self, *, deadline_s: float) -> bool:
        """Wait until *deadline_s* of the monotonic clock, then kill it; whether it ended before, without an error."""
        try:
            return self.process.wait(max(0.0, deadline_s - time.monotonic())) == 0
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait()

    def rss_bytes(self) -> int:
        """Its resident memory now, 0 if it has ended."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:")), 0)

    def last_words(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError), self.part.log.open("rb") as file:
            file.seek(max(0, self.part.log.stat().st_size - LOG_BYTES_READ))
            lines = file.read().decode("utf-8", "backslashreplace").splitlines()
            return "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:])
        return ""


class Programs:
    """What was started and has not been stopped or killed by us, by name."""

    def __init__(self) -> None:
        self._running: dict[str, Program] = {}

    def start(self, part: Part) -> Program:
        """Start *part*; it is ended with the others.

        Must be called by the main thread: the kernel's signal comes at the end of the thread that started it.
        """
        assert part.name not in self._running, f"{part.name} runs already"
        parent = os.getpid()

        def die_with_us() -> None:
            _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

        with part.log.open("ab") as sink:
            process = subprocess.Popen(  # noqa: S603 - our own programs, and the broker that was found
                part.command,
                cwd=part.directory,
                env=os.environ | part.environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,  # the terminal's Ctrl-C is ours, so that they end in order
                preexec_fn=die_with_us,  # noqa: PLW1509 - one thread, one system call
            )
        program = self._running[part.name] = Program(part, process)
        return program

    def run_all(self, parts: Sequence[Part], *, seconds_max: float) -> None:
        """Run each to its end, all at once. Raises ProgramError: one failed, or took too long."""
        deadline_s = time.monotonic() + seconds_max
        for program in [self.start(part) for part in parts]:
            done = program.wait(deadline_s=deadline_s)
            del self._running[program.name]
            if not done:
                raise ProgramError(f"the {program.name} failed\n{program.last_words()}")

    def rss_bytes(self, name: str) -> int:
        """Of one of them; 0 if it does not run."""
        program = self._running.get(name)
        return program.rss_bytes() if program is not None else 0

    def check(self) -> None:
        """Raises ProgramError: one of them has ended by itself."""
        for program in self._running.values():
            program.check()

    def kill(self, name: str) -> None:
        """End one of them as a power cut would. Nothing happens if it does not run."""
        program = self._running.pop(name, None)
        if program is not None:
            program.kill()

    def stop(self, names: Iterable[str]) -> bool:
        """Ask those of *names* that run to end, all at once; whether each did, by itself and without an error."""
        stopped = [self._running.pop(name) for name in tuple(names) if name in self._running]
        for program in stopped:
            program.process.terminate()
        began_s = time.monotonic()
        ended = [program.wait(deadline_s=began_s + program.part.stop_s_max) for program in stopped]
        return all(ended)

    def stop_all(self) -> bool:
        """The rest; see :meth:`stop`."""
        return self.stop(tuple(self._running))


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
