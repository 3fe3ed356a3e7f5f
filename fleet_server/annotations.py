"""Wires what happened to its annotations in the time-series server: its words in each language."""

from collections.abc import Sequence
from typing import Final

from fleet_server.outbound.happenings import Happening, text
from fleet_server.outbound.store import Feed, Filter
from fleet_server.projection.annotations import Annotation
from fleet_server.texts import Language, Texts

_WORDS: Final = (Texts(Language.EN), Texts(Language.ZH_HANS))
"""In the order of the fields ``text_en`` and ``text_zh_hans``."""
_ALL: Final = Filter()


class FeedAnnotations:
    """A :class:`fleet_server.projection.annotations.Happened`."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def newest(self) -> int:
        """See the port."""
        return next((each.id for each in self._feed.before(None, _ALL, rows_max=1)), 0)

    def after(self, number: int, *, rows_max: int) -> tuple[Sequence[Annotation], int]:
        """See the port."""
        page = self._feed.after(number, _ALL, rows_max=rows_max)
        return [annotation_of(each) for each in page.happenings], page.up_to


def annotation_of(happening: Happening) -> Annotation:
    """In both languages."""
    news = happening.news
    words = tuple(text(news, each) for each in _WORDS)
    values = (news.kind.value, news.severity.value, *words)
    return Annotation(happening.id, news.at_ms, news.device, news.device_class, news.org, values)
