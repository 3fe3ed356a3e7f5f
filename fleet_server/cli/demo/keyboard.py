"""Keys as they are pressed, and the wish to end (Ctrl-C, SIGTERM, a closed terminal), from one wait."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

KEYS_BYTES_MAX: Final = 64
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Set by a signal; a wait for keys ends with it."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()
        self._is_set = False

    def set(self) -> None:
        """Idempotent; safe in a signal handler."""
        if not self._is_set:
            self._is_set = True
            os.write(self._write_end, b"\0")

    def is_set(self) -> bool:
        """Whether it was asked for."""
        return self._is_set

    def wait(self, seconds: float) -> str:
        """Wait so long, or until it is set or keys are pressed; return those, empty if there is no terminal."""
        keys = sys.stdin.fileno() if has_keys() else None
        watched = [self.read_end] if keys is None else [self.read_end, keys]
        ready, _, _ = select.select(watched, [], [], max(0.0, seconds))
        if keys is None or keys not in ready:
            return ""
        try:
            pressed = os.read(keys, KEYS_BYTES_MAX)
        except OSError:
            pressed = b""
        if not pressed:  # the terminal is gone
            self.set()
        return pressed.decode("ascii", "replace")

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self.read_end)
        os.close(self._write_end)


@contextmanager
def listening() -> Iterator[Stop]:
    """Keys come one by one and unseen, and signals set the stop, within the block."""
    stop = Stop()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    handlers = {number: signal.signal(number, on_signal) for number in ENDING}
    before = None
    if has_keys():
        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin, termios.TCSANOW)
    try:
        yield stop
    finally:
        if before is not None:
            _restore(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        stop.close()


def _restore(before: list[int | list[bytes | int]]) -> None:
    try:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
    except termios.error:
        return  # a terminal that is gone needs nothing


def has_keys() -> bool:
    """Whether there is a terminal whose keys are ours."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()  # in the background, to ask would stop us
    except OSError:
        return True  # a terminal that controls nobody
