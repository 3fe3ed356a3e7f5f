"""Who may say and hear what at the broker: one table, deny by default.

Each broker's access list is rendered from ``RULES``, and a broker of our own asks :func:`allowed`. The verdict
is on what is *delivered*: a broker may grant any subscription and acknowledge any publication, as long as
nothing comes of it.

What no broker can check, and the server therefore must: that a shard is the device's own (SHA-256 is no
pattern), and that the channel after ``up/`` exists.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker_config import topics
from broker_config.ids import BadIdError, DeviceId, SiteId, device_id, server_user

OWN: Final = "{own}"
"""The level of a rule's filter that stands for the identity's own name."""


class Role(StrEnum):
    """Told by the listener, each of which trusts one certificate authority."""

    DEVICE = "device"
    SERVER = "server"


class Action(StrEnum):
    """What a broker does for somebody: take a message from them (a will too), or deliver one to them."""

    PUBLISH = "publish"
    RECEIVE = "receive"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate says it is; *name* is what the broker takes from it, and not yet trusted."""

    role: Role
    name: str


@dataclass(frozen=True, slots=True)
class Rule:
    """*role* may do *action* on every topic that *pattern* covers; nothing else may anything."""

    role: Role
    action: Action
    pattern: str
    retained: bool = False
    """Whether a publication may be retained."""


RULES: Final = (
    Rule(Role.DEVICE, Action.PUBLISH, topics.up_tree(OWN)),
    Rule(Role.DEVICE, Action.PUBLISH, topics.status_tree(OWN), retained=True),
    Rule(Role.DEVICE, Action.RECEIVE, topics.down_tree(OWN)),
    Rule(Role.DEVICE, Action.RECEIVE, topics.SERVER_STATE),
    Rule(Role.SERVER, Action.RECEIVE, topics.up_tree()),
    # A server reads what the one before it has left.
    Rule(Role.SERVER, Action.RECEIVE, topics.SERVER_STATE),
    Rule(Role.SERVER, Action.PUBLISH, topics.down_tree()),
    Rule(Role.SERVER, Action.PUBLISH, topics.SERVER_STATE, retained=True),
    # Clears the status of a device that is gone for good.
    Rule(Role.SERVER, Action.PUBLISH, topics.status_tree(), retained=True),
)


def device(name: DeviceId) -> Identity:
    """A device."""
    return Identity(Role.DEVICE, name)


def server(site: SiteId) -> Identity:
    """The fleet server of a site."""
    return Identity(Role.SERVER, server_user(site))


def allowed(identity: Identity, action: Action, topic: str, *, retain: bool = False) -> bool:
    """Whether *identity* may do *action* on *topic*, a name without wildcards.

    *retain*: the publication asks to be kept. A name or a topic that is none is a no.
    """
    if not _is_topic_name(topic) or not _is_name(identity):
        return False
    return any(
        rule.role is identity.role
        and rule.action is action
        and (rule.retained or not retain)
        and topics.matches(rule.pattern.replace(OWN, identity.name), topic)
        for rule in RULES
    )


def _is_topic_name(topic: str) -> bool:
    return bool(topic) and not any(character in topic for character in "+#\0")


def _is_name(identity: Identity) -> bool:
    if identity.role is Role.SERVER:
        return True  # no rule of the server's holds its name
    try:
        device_id(identity.name)
    except BadIdError:
        return False
    return True
