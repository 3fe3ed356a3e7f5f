"""Has signatures checked by a child process, which is killed when it takes too long."""

import asyncio
import contextlib
import os
import sys
from typing import Final

import msgspec

from broker_config.text import shown
from edge_agent.obeying import Order
from edge_agent.verify import Answer, Check, Request

CHECK_S_MAX: Final = 10.0
"""A slow board with a cold disk needs seconds to load the library."""
NICENESS: Final = 10
"""An order can wait for a reading, not the other way round."""


class CheckError(Exception):
    """Nobody could say whether a signature is right."""


async def verified(order: Order, *, seconds_max: float = CHECK_S_MAX) -> frozenset[str]:
    """The keys whose signatures of *order* are right.

    Raises:
        CheckError: no process, no answer in time, or one that is none.
    """
    request = msgspec.json.encode(Request(order.signed, tuple(Check(*each) for each in order.candidates)))
    command = (sys.executable, "-I", "-m", "edge_agent.verify")  # -I: no variable or directory says what is imported
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError as error:
        raise CheckError(shown(error)) from error
    try:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
        answer, _ = await asyncio.wait_for(child.communicate(request), seconds_max)
    except (TimeoutError, OSError) as error:
        raise CheckError(f"no answer within {seconds_max} s") from error
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode != 0:
        raise CheckError(f"the check ended with {child.returncode}")
    try:
        return frozenset(msgspec.json.decode(answer, type=Answer).verified) & order.keyids
    except msgspec.MsgspecError as error:
        raise CheckError(shown(error)) from error
