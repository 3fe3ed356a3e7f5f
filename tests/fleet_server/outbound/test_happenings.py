"""What happens has words in every language, and they have all that it says."""

import pytest

from fleet_server.outbound import happenings
from fleet_server.outbound.happenings import FIRST, ONE, WORDS, Kind, News, text
from fleet_server.texts import Language, Texts, catalogue


@pytest.mark.parametrize("language", [each for each in Language if each is not Language.EN])
def test_every_kind_has_its_words_in_every_language(language: Language) -> None:
    keys = {*WORDS.values(), *FIRST.values(), *ONE.values()}
    assert set(WORDS) == set(Kind)
    assert keys - catalogue(language).keys() == set()


@pytest.mark.parametrize("kind", Kind)
def test_what_says_nothing_still_has_a_line(kind: Kind) -> None:
    assert "{" not in text(News(0, kind))


def test_a_line_says_all_in_the_language_that_is_asked_for() -> None:
    news = News(0, Kind.GAP_UNEXPLAINED, "cam-7", data={"count": 3, "streams": ("power", "gnss")})
    assert text(news) == "cam-7: 3 gaps without a reason in power, gnss"
    assert "power, gnss 有 3 处原因不明的数据缺口" in text(news, Texts(Language.ZH_HANS))


def test_one_is_said_as_one() -> None:
    one = News(0, Kind.GAP_LOST, "cam-7", data={"count": 1, "streams": ("power",)})
    assert text(one) == "cam-7: a gap of what was receipted in power: lost"
    assert happenings.key(News(0, Kind.DEVICE_CONNECTED, "cam-7", data={"first": True})) in FIRST.values()
