"""Tasks of the agent: that one ended by a mistake is seen, and one of several events is waited for."""

import asyncio
from collections.abc import Iterable


def raise_mistakes(tasks: Iterable[asyncio.Task[None]]) -> None:
    """A task that ended by an error of ours ends the agent: whoever watches over it starts it again."""
    for task in tasks:
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is not None:
                raise error


async def any_of(*events: asyncio.Event) -> None:
    """Until one of them is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
