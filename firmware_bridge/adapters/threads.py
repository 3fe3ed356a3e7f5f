"""Runs a call that may hang in a thread of its own, so that nobody else waits for it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class StuckError(Exception):
    """The call did not come back in time. It may still be running; it is not started again until it did."""


class OneCall(Generic[T]):
    """At most one call at a time. The thread is a daemon: a call that never returns does not keep a process alive."""

    def __init__(self) -> None:
        self._running = False

    async def run(self, call: Callable[[], T], deadline_s: float) -> T:
        """What *call* returns or raises.

        Raises:
            StuckError: it takes longer than *deadline_s*, or the one before still has not returned.
        """
        if self._running:
            raise StuckError("the call before has not returned yet")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def deliver(result: T | None, error: BaseException | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]  # None only where T allows it

        def work() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = call()
            except BaseException as raised:  # noqa: BLE001  # it is raised again where the call was made
                error = raised
            self._running = False
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(deliver, result, error)

        self._running = True
        threading.Thread(target=work, daemon=True).start()
        try:
            return await asyncio.wait_for(done, deadline_s)
        except TimeoutError:
            raise StuckError(f"no answer within {deadline_s} s") from None
