"""Has files sealed by a child process, which is killed when it takes too long."""

import asyncio
import contextlib
import os
import sys
from typing import Final

import msgspec

from broker_config.limits import KIB
from broker_config.text import shown
from edge_agent.sealing import SealAnswer, SealRequest

START_S_MAX: Final = 30.0
READ_BYTES_A_SECOND_MIN: Final = KIB * KIB
"""A slower disk than this is no disk to record on."""
NICENESS: Final = 10
ANSWER_BYTES_MAX: Final = 8 * KIB * KIB
"""Sixteen files of the largest size: a manifest, a certificate and 128 KiB of CRCs each."""


class SealingError(Exception):
    """Nothing was answered that could be read."""


async def sealed(request: SealRequest) -> tuple[SealAnswer, ...]:
    """What was sealed, in the order of the jobs; fewer if the child ended early. Raises SealingError."""
    seconds_max = START_S_MAX + sum(job.size for job in request.jobs) / READ_BYTES_A_SECOND_MIN
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-m", "edge_agent.sealing", stdin=pipe, stdout=pipe, stderr=pipe
        )
    except OSError as error:
        raise SealingError(shown(error)) from error
    try:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
        answer, told = await asyncio.wait_for(child.communicate(msgspec.json.encode(request)), seconds_max)
    except (TimeoutError, OSError) as error:
        raise SealingError(f"no answer within {seconds_max:.0f} s") from error
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    try:
        out = tuple(msgspec.json.decode(line, type=SealAnswer) for line in answer[:ANSWER_BYTES_MAX].splitlines())
    except msgspec.MsgspecError as error:
        raise SealingError(shown(error)) from error
    if not out:
        raise SealingError(f"the child ended with {child.returncode}: {shown(told)}")
    return out
