"""Has a release fetched and checked by a child process, which is killed when it takes too long: what came is kept."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from broker_config.limits import KIB
from broker_config.text import shown
from edge_agent.adapters import child
from edge_agent.adapters.child import ChildError, Ended
from edge_agent.releases import Answer, Fetched, Wanted

MODULE: Final = "edge_agent.fetch_release"
FETCH_S_MAX: Final = 6 * 3_600.0
"""A large image over a slow modem; the next child goes on where this one was."""
ANSWER_BYTES_MAX: Final = 16 * KIB
AGAIN_S_MIN: Final = 5.0
AGAIN_S_MAX: Final = 300.0
"""Between two attempts: the listener may be away, or too busy, and what came is kept."""
PATIENCE_S: Final = FETCH_S_MAX
"""For all attempts together; then the change has failed, and a newer version has its turn; what came is kept."""


class FetchingError(Exception):
    """There is no answer, or the configuration is wrong; the message says what."""


class Relay(Protocol):
    """Passes the child's questions on to the broker, and the answers back."""

    async def ask(self, module: str, *, seconds_max: float, arguments: Sequence[str]) -> Ended:
        """See :func:`edge_agent.adapters.child.ask`. Raises ChildError."""


async def fetched(
    config_file: Path, wanted: Wanted, relay: Relay | None = None, *, seconds_max: float = FETCH_S_MAX
) -> Answer:
    """What came of it; *relay*: over MQTT. One at a time: a second one is told "not now". Raises FetchingError."""
    arguments = (
        wanted.path,
        *("--config", str(config_file)),
        *("--hw", wanted.hw),
        *("--kind", wanted.kind),
        *("--installed", str(wanted.installed)),
        *("--not-before-ms", str(wanted.not_before_ms)),
        "--json",
    )
    try:
        if relay is None:
            ended = await child.ask(MODULE, b"", seconds_max=seconds_max, arguments=arguments)
        else:
            ended = await relay.ask(MODULE, seconds_max=seconds_max, arguments=(*arguments, "--relayed"))
        answer = msgspec.json.decode(ended.answer[:ANSWER_BYTES_MAX], type=Answer)
    except ChildError as error:
        raise FetchingError(shown(error)) from error
    except msgspec.MsgspecError as error:
        raise FetchingError(f"the child ended with {ended.code}: {shown(ended.said, 300)}") from error
    return answer


async def fetched_at_last(
    config_file: Path, wanted: Wanted, relay: Relay | None = None
) -> tuple[Fetched | None, str]:
    """The image, or why there is none: refused, or not had within PATIENCE_S."""
    pause_s, why = AGAIN_S_MIN, "nobody answered"
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await fetched(config_file, wanted, relay)
                if answer.fetched is not None:
                    return answer.fetched, ""
                if answer.refused is not None:
                    return None, f"refused, {answer.refused.attack.value}: {shown(answer.refused.why, 300)}"
                why = answer.not_now
                await asyncio.sleep(pause_s)
                pause_s = min(AGAIN_S_MAX, 2 * pause_s)
    except TimeoutError:
        return None, f"not fetched within {PATIENCE_S:g} s: {shown(why)}"
    except FetchingError as error:
        return None, f"not fetched: {error}"
