"""Asks a short-lived child process: what takes a large library, or reads what a stranger wrote, happens there."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from broker_config.text import shown

NICENESS: Final = 10
"""An order or a file can wait for a reading, not the other way round."""


class ChildError(Exception):
    """There is no answer."""


class Ended(NamedTuple):
    """Its exit code, its answer, and what it said of a failure."""

    code: int
    answer: bytes
    said: bytes


async def ask(module: str, request: bytes, *, seconds_max: float, arguments: Sequence[str] = ()) -> Ended:
    """Have ``python -m module`` read *request*; it is killed when it takes longer.

    Raises:
        ChildError: it cannot be started, or did not answer in time.
    """
    async with started(module, arguments) as child:
        try:
            async with asyncio.timeout(seconds_max):  # not wait_for: it may swallow that the agent is to end
                answer, said = await child.communicate(request)
        except (TimeoutError, OSError) as error:
            raise ChildError(f"no answer within {seconds_max:g} s") from error
    return Ended(child.returncode or 0, answer, said)


@contextlib.asynccontextmanager
async def started(module: str, arguments: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """``python -m module``, with pipes; killed with the block if it still runs. Raises ChildError."""
    command = (sys.executable, "-I", "-m", module, *arguments)  # -I: no variable or directory says what is imported
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise ChildError(shown(error)) from error
    try:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
        yield child
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
