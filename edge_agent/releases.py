"""Whether a release may be taken, and what is wrong if not. Plain functions; the metadata was checked before.

Every refusal has the name of the attack that it would be, so that who reads the journal knows whom to call: a name
says what was seen, not that somebody meant it.
"""

from enum import StrEnum
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from broker_config.limits import KIB, SEQ_MAX, TIME_MS_MAX
from broker_config.releases import Custom, Hw, ImageKind

GRACE_S: Final = 20.0
BYTES_S_MIN: Final = 1 * KIB
"""What comes slower than this for longer than GRACE_S is being held back: no modem is that slow."""


class Attack(StrEnum):
    """By TUF's names."""

    ARBITRARY = "arbitrary software"
    ROLLBACK = "rollback"
    FREEZE = "freeze"
    MIX_AND_MATCH = "mix-and-match"
    ENDLESS_DATA = "endless data"
    SLOW_RETRIEVAL = "slow retrieval"
    WRONG_TARGET = "wrong target"
    THRESHOLD = "threshold of signatures not met"
    MALFORMED = "malformed metadata"


class Wanted(Struct, frozen=True):
    """What is asked for. ``path``: of the target, as an order names it. ``installed``: the release counter of what
    runs now, 0: nothing is known of it. ``not_before_ms``: the newest time that this device knows to have been; a
    clock that says less cannot tell what has expired.
    """

    path: str
    hw: Hw
    kind: ImageKind
    installed: Annotated[int, Meta(ge=0, le=SEQ_MAX)]
    not_before_ms: Annotated[int, Meta(ge=0, le=TIME_MS_MAX)] = 0


class Fetched(Struct, frozen=True):
    """An image that was checked. ``file``: where it is. ``sha256``: hex, as signed."""

    file: str
    sha256: str
    size_bytes: int
    version: str
    counter: int


class Refused(Struct, frozen=True):
    """Nothing was taken. Asking again changes nothing until the server has something else; but for slow retrieval,
    which may be the network: what came is kept.
    """

    attack: Attack
    why: str


class Answer(Struct, frozen=True, omit_defaults=True):
    """What the child that fetches says, one of the three; ``not_now``: why, and it goes on where it was when asked
    again.
    """

    fetched: Fetched | None = None
    refused: Refused | None = None
    not_now: str = ""


class RefusedReleaseError(Exception):
    """See :class:`Refused`."""

    def __init__(self, attack: Attack, why: str) -> None:
        super().__init__(f"refused, {attack.value}: {why}")
        self.refused = Refused(attack, why)


class Pace(NamedTuple):
    """How slow is too slow."""

    grace_s: float = GRACE_S
    bytes_s_min: float = BYTES_S_MIN

    def check(self, size_bytes: int, elapsed_s: float) -> None:
        """After *size_bytes* in *elapsed_s*. Raises RefusedReleaseError."""
        if elapsed_s > self.grace_s and size_bytes < (elapsed_s - self.grace_s) * self.bytes_s_min:
            raise RefusedReleaseError(
                Attack.SLOW_RETRIEVAL,
                f"expected {self.bytes_s_min:g} bytes a second, got {size_bytes} in {elapsed_s:.1f} s",
            )


USUAL: Final = Pace()


def check_wanted(custom: Custom, wanted: Wanted) -> None:
    """Whether what was signed is for this hardware, and not older than what runs. Raises RefusedReleaseError."""
    if (custom.hw, custom.kind) != (wanted.hw, wanted.kind):
        raise RefusedReleaseError(
            Attack.WRONG_TARGET,
            f"{wanted.path} is for {custom.kind} {custom.hw}, this is {wanted.kind} {wanted.hw}",
        )
    if custom.counter < wanted.installed and wanted.installed not in custom.allow_downgrade_from:
        raise RefusedReleaseError(
            Attack.ROLLBACK,
            f"release counter {custom.counter} of {wanted.path} is below {wanted.installed}, which is installed, and "
            "no signed exception names that",
        )


def check_clock(now_ms: int, not_before_ms: int) -> None:
    """Raises RefusedReleaseError: what has expired cannot be told from what has not."""
    if now_ms < not_before_ms:
        raise RefusedReleaseError(
            Attack.FREEZE, f"expected a clock that says {not_before_ms} ms or more, got {now_ms}: set it first"
        )
