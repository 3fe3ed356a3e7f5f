"""The running agent's part of a renewal: it starts the child now and then, and is told when there is a new pair.

The same child brings newer signers and MAC keys. That there are some the server hints at, in a message that nobody
vouches for: a hint starts the child sooner, after the spread that the server states, and within a bound.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker_config.text import shown

FIRST_S_MAX: Final = 30.0
CHECK_S_MIN: Final = 3 * 3600.0
CHECK_S_MAX: Final = 6 * 3600.0
"""Far below the tenth of a certificate's life over which renewals are spread."""
AGAIN_S_MIN: Final = 60.0
AGAIN_S_MAX: Final = 900.0
"""After a failure: a device that was in a drawer has no other way to the broker."""
HINTS_AT_ONCE: Final = 4
HINT_S_MIN: Final = 600.0
"""Children that hints may start in a row, and one more each HINT_S_MIN: what lies cost at most."""
CHILD_S_MAX: Final = 120.0
SAID_BYTES_MAX: Final = 2_000
RENEWED: Final = 0
NOT_DUE: Final = 10
"""As ``renewal`` has them, which is not imported for the library behind it."""

logger = logging.getLogger(__name__)


Uniform = Callable[[float, float], float]


class Hint:
    """That the child may find something: set by the agent, waited for here."""

    def __init__(self, uniform: Uniform) -> None:
        self._uniform = uniform
        self._given = asyncio.Event()
        self._spread_s = 0.0
        self._paid_until_s = 0.0

    def give(self, spread_s: float) -> None:
        """*spread_s*: over how long a whole fleet that hears it is to spread."""
        self._spread_s = spread_s
        self._given.set()

    async def within(self, wait_s: float) -> None:
        """Return after *wait_s*, or sooner for a hint."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._given.wait()
                free_s = self._paid_until_s - (HINTS_AT_ONCE - 1) * HINT_S_MIN
                await asyncio.sleep(max(0.0, free_s - loop.time()) + self._uniform(0.0, self._spread_s))
                self._paid_until_s = max(self._paid_until_s, loop.time()) + HINT_S_MIN
        self._given.clear()


async def keep_renewed(
    config_file: Path,
    uniform: Uniform,
    renewed: Callable[[], None],
    looked: Callable[[], None],
    hint: Hint,
) -> None:
    """Look until cancelled. *looked*: after each look, whatever came of it."""
    wait_s, failing = uniform(0.0, FIRST_S_MAX), False
    while True:
        await hint.within(wait_s)
        code, said = await _child(config_file)
        looked()
        if code in {RENEWED, NOT_DUE}:
            wait_s, failing = uniform(CHECK_S_MIN, CHECK_S_MAX), False
            if code == RENEWED:
                logger.info("there is a new certificate")
                renewed()
            continue
        logger.log(
            logging.DEBUG if failing else logging.WARNING,
            "cannot renew",
            extra={"why": shown(said, 500), "code": code},
        )
        wait_s, failing = uniform(AGAIN_S_MIN, AGAIN_S_MAX), True


async def _child(config_file: Path) -> tuple[int, str]:
    """Its exit code, and what it said of a failure."""
    command = (sys.executable, "-m", "edge_agent.renewal", "--config", str(config_file), "--if-due")
    try:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        return -1, str(error)
    try:
        async with asyncio.timeout(CHILD_S_MAX):
            _, said = await child.communicate()
    except TimeoutError:
        return -1, f"took longer than {CHILD_S_MAX:g} s"
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return child.returncode or 0, said[-SAID_BYTES_MAX:].decode("utf-8", "backslashreplace")
