"""Has files sealed by a child process, which is killed when it takes too long."""

from typing import Final

import msgspec

from broker_config.limits import KIB
from broker_config.text import shown
from edge_agent.adapters import child
from edge_agent.adapters.child import ChildError
from edge_agent.sealing import SealAnswer, SealRequest

START_S_MAX: Final = 30.0
READ_BYTES_A_SECOND_MIN: Final = KIB * KIB
"""A slower disk than this is no disk to record on."""
ANSWER_BYTES_MAX: Final = 8 * KIB * KIB
"""Sixteen files of the largest size: a manifest, a certificate and 128 KiB of CRCs each."""


class SealingError(Exception):
    """Nothing was answered that could be read."""


async def sealed(request: SealRequest) -> tuple[SealAnswer, ...]:
    """What was sealed, in the order of the jobs; fewer if the child ended early. Raises SealingError."""
    seconds_max = START_S_MAX + sum(job.size for job in request.jobs) / READ_BYTES_A_SECOND_MIN
    try:
        ended = await child.ask("edge_agent.sealing", msgspec.json.encode(request), seconds_max=seconds_max)
        lines = ended.answer[:ANSWER_BYTES_MAX].splitlines()
        out = tuple(msgspec.json.decode(line, type=SealAnswer) for line in lines)
    except (ChildError, msgspec.MsgspecError) as error:
        raise SealingError(shown(error)) from error
    if not out:
        raise SealingError(f"the child ended with {ended.code}: {shown(ended.said)}")
    return out
