"""Who is told of what: webhooks, which operators make over the API, and the mail of the configuration."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from fleet_server.outbound.happenings import SEVERITIES, Kind, News, Severity
from fleet_server.registry.tree import is_below

SUBSCRIPTIONS_MAX: Final = 100
MAIL_ID: Final = "mail"
"""The one subscription that no operator made."""
ID_PATTERN: Final = r"^[a-z][a-z0-9]{3,20}$"


class Sort(StrEnum):
    """How a subscription is served."""

    WEBHOOK = "webhook"
    MAIL = "mail"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which happenings: of these kinds, at least of this severity, in this part of the organisation tree.

    ``kinds`` empty: of all; ``org`` empty: of all places and of the server itself.
    """

    kinds: frozenset[Kind] = frozenset()
    severity: Severity = Severity.INFO
    org: str = ""

    def takes(self, news: News) -> bool:
        """Whether it is one of them; a test is only for who asked for it."""
        return (
            news.kind is not Kind.WEBHOOK_TEST
            and (not self.kinds or news.kind in self.kinds)
            and SEVERITIES.index(news.severity) >= SEVERITIES.index(self.severity)
            and (not self.org or is_below(news.org, self.org))
        )


@dataclass(frozen=True, slots=True)
class Subscription:
    """``secret`` signs what goes to ``url``; both are empty for mail. ``disabled``: why it is not served, empty if it
    is. ``revision`` counts the changes, from 1.
    """

    id: str
    sort: Sort
    url: str
    secret: str = field(repr=False)
    choice: Choice
    note: str
    disabled: str
    revision: int
    created_ms: int


def takers(subscriptions: Iterable[Subscription], news: News) -> list[Subscription]:
    """Who is to be told. Nobody is told of their own failure by the way that fails."""
    return [
        each
        for each in subscriptions
        if not each.disabled
        and each.choice.takes(news)
        and not (news.kind is Kind.WEBHOOK_FAILING and news.data.get("webhook") == each.id)
    ]
