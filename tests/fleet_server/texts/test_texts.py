"""Texts come from one catalogue; what it lacks is named, and English stands in for it."""

import re

import pytest

from fleet_server.texts import Language, Texts, catalogue, marked

PLACEHOLDER = re.compile(r"\{(\w+)[^}]*\}")


def test_a_key_is_its_own_text_in_english() -> None:
    text = Texts(Language.EN)
    assert text("{device} is connected", device="car-7") == "car-7 is connected"
    assert not text.missing


def test_chinese_is_in_the_catalogue() -> None:
    assert Texts(Language.ZH_HANS)("1 while it is connected") == "已连接时为 1"


def test_what_is_not_in_the_catalogue_is_said_in_english_and_named() -> None:
    text = Texts(Language.ZH_HANS)
    assert text(marked("nobody ever says this of {device}"), device="car-7") == "nobody ever says this of car-7"
    assert text.missing == {"nobody ever says this of {device}"}


@pytest.mark.parametrize("language", [each for each in Language if each is not Language.EN])
def test_every_text_has_the_values_of_its_key(language: Language) -> None:
    for key, text in catalogue(language).items():
        assert sorted(PLACEHOLDER.findall(key)) == sorted(PLACEHOLDER.findall(text)), key
