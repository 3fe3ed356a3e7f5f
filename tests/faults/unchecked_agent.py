"""The negative control: an agent that takes every signature for right. ``python -m tests.faults.unchecked_agent``."""

import sys

from edge_agent import agent
from edge_agent.__main__ import main
from edge_agent.adapters import files
from edge_agent.adapters.system import System
from edge_agent.config import Settings
from edge_agent.obeying import Order


class UncheckedAgent(agent.Agent):
    """Otherwise it is the product's."""

    def __init__(self, settings: Settings, system: System, keys: files.DeviceKeys, wired: frozenset[str]) -> None:
        super().__init__(settings, system, keys, wired)
        self._orders._check = self._right

    @staticmethod
    async def _right(order: Order) -> frozenset[str]:
        return order.keyids


if __name__ == "__main__":
    agent.Agent = UncheckedAgent  # type: ignore[misc]  # the program takes it from there when it runs
    sys.exit(main())
