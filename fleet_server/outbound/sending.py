"""How happenings leave the server. These are the ports; ``adapters.webhook`` and ``adapters.mail`` do it."""

from collections.abc import Sequence
from typing import Protocol

from fleet_server.outbound.happenings import Happening
from fleet_server.outbound.retries import Attempt
from fleet_server.outbound.subscriptions import Subscription


class Sender(Protocol):
    """One attempt, bounded in time; whatever goes wrong is an :class:`Attempt`, and nothing is raised.

    ``rows_max``: happenings that one attempt may carry. ``concurrent_max``: attempts of one subscription at once.
    ``sweeps``: once one is due, all that wait go with it.
    """

    rows_max: int
    concurrent_max: int
    sweeps: bool

    async def send(self, subscription: Subscription, happenings: Sequence[Happening], *, now_ms: int) -> Attempt:
        """Try to tell of *happenings*, oldest first."""

    async def aclose(self) -> None:
        """Give back what it holds."""
