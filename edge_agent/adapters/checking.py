"""Has signatures checked by a child process, which is killed when it takes too long."""

from typing import Final

import msgspec

from broker_config.text import shown
from edge_agent.adapters import child
from edge_agent.adapters.child import ChildError
from edge_agent.obeying import Order
from edge_agent.verify import Answer, Check, Request

CHECK_S_MAX: Final = 10.0
"""A slow board with a cold disk needs seconds to load the library."""


class CheckError(Exception):
    """Nobody could say whether a signature is right."""


async def verified(order: Order, *, seconds_max: float = CHECK_S_MAX) -> frozenset[str]:
    """The keys whose signatures of *order* are right.

    Raises:
        CheckError: no process, no answer in time, or one that is none.
    """
    request = msgspec.json.encode(Request(order.signed, tuple(Check(*each) for each in order.candidates)))
    try:
        ended = await child.ask("edge_agent.verify", request, seconds_max=seconds_max)
    except ChildError as error:
        raise CheckError(str(error)) from error
    if ended.code != 0:
        raise CheckError(f"the check ended with {ended.code}")
    try:
        return frozenset(msgspec.json.decode(ended.answer, type=Answer).verified) & order.keyids
    except msgspec.MsgspecError as error:
        raise CheckError(shown(error)) from error
