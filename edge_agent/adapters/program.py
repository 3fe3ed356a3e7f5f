"""Runs a program of the profile's: parameters in on stdin, an exit code and the beginning of what it says out."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Final, NamedTuple

from broker_config.text import shown

OUTPUT_BYTES_MAX: Final = 2_048
"""Kept of what it says; it may say more."""
READ_BYTES: Final = 4_096
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProgramError(Exception):
    """It could not be started, or took too long and was killed."""


class Ran(NamedTuple):
    """Its exit code, negative if a signal ended it, and the beginning of what it said on stdout and stderr."""

    code: int
    output: bytes


async def run(argv: Sequence[str], stdin: bytes, *, seconds_max: float) -> Ran:
    """Run *argv* in a session of its own; whatever ends the wait ends all that it started in that session.

    Raises:
        ProgramError: it cannot be started, or took longer than *seconds_max*.
    """
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            env={"PATH": PATH},
        )
    except (OSError, ValueError) as error:
        raise ProgramError(shown(error)) from error
    try:
        async with asyncio.timeout(seconds_max):
            output = await _said(process, stdin)
            await process.wait()
    except TimeoutError as error:
        raise ProgramError(f"no end within {seconds_max:g} s") from error
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return Ran(process.returncode or 0, output)


async def _said(process: asyncio.subprocess.Process, stdin: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):  # it need not read them
        process.stdin.write(stdin)
        await process.stdin.drain()
    process.stdin.close()
    out = b""
    while part := await process.stdout.read(READ_BYTES):
        out = (out + part)[:OUTPUT_BYTES_MAX]
    return out
