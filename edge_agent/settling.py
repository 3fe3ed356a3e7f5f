"""A new certificate that has connected takes the old one's place, while its connection is listened to."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

from broker_config.text import shown
from edge_agent.adapters import files
from edge_agent.identity import Pair

AGAIN_S: Final = 0.5
"""While a renewal holds the identity, for as long as its server takes."""

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def settling(own: Pair, cert: bytes) -> AsyncIterator[None]:
    """Beside what the block does. *cert*: of the next pair, as it was before it connected; empty if none did."""
    task = asyncio.create_task(_settle(own, cert))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _settle(own: Pair, cert: bytes) -> None:
    while cert:
        try:
            settled = await asyncio.to_thread(files.settle, own, cert)
        except BlockingIOError:
            await asyncio.sleep(AGAIN_S)
            continue
        except OSError as error:
            logger.warning("the new certificate stays beside the old one", extra={"why": shown(error)})
            return
        if settled:
            logger.info("the new certificate has taken the old one's place")
        else:
            logger.info("yet another certificate has come, and is tried first")
        return
