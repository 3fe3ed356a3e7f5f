"""The running agent's part of a renewal: it starts the child now and then, and is told when there is a new pair."""

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
CHILD_S_MAX: Final = 120.0
SAID_BYTES_MAX: Final = 2_000
RENEWED: Final = 0
NOT_DUE: Final = 10
"""As ``renewal`` has them, which is not imported for the library behind it."""

logger = logging.getLogger(__name__)


async def keep_renewed(
    config_file: Path, uniform: Callable[[float, float], float], renewed: Callable[[], None]
) -> None:
    """Look until cancelled."""
    wait_s, failing = uniform(0.0, FIRST_S_MAX), False
    while True:
        await asyncio.sleep(wait_s)
        code, said = await _child(config_file)
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
