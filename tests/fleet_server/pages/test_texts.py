"""Everything on pages is said in each language, and in the one that a visitor reads."""

import ast
import re
from pathlib import Path

import pytest

import fleet_server.pages
from fleet_server.pages.languages import chosen
from fleet_server.texts import Language, catalogue
from tests.fleet_server.pages.conftest import Pages

ROOM = Path(fleet_server.pages.__file__).parent
IN_TEMPLATE = re.compile(r'text\("([^"]+)"')


def keys() -> set[str]:
    """Of templates and modules."""
    found = {key for file in ROOM.glob("templates/*.html") for key in IN_TEMPLATE.findall(file.read_text())}
    for file in ROOM.glob("*.py"):
        for each in ast.walk(ast.parse(file.read_text())):
            if isinstance(each, ast.Call) and getattr(each.func, "id", "") in {"text", "marked"}:
                (first, *_) = each.args
                if isinstance(first, ast.Constant):
                    found.add(str(first.value))
    return found


@pytest.mark.parametrize("language", [each for each in Language if each is not Language.EN])
def test_every_text_of_a_page_is_in_the_catalogue(language: Language) -> None:
    assert len(keys()) > 100
    assert keys() - catalogue(language).keys() == set()


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        (None, "", Language.EN),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", Language.ZH_HANS),
        (None, "de, en;q=0.5, zh;q=0.6", Language.ZH_HANS),
        (None, "zh;q=0, fr", Language.EN),
        (None, "zh;q=rubbish", Language.EN),
        ("en", "zh", Language.EN),
        ("zh-Hans", "en", Language.ZH_HANS),
        ("<script>", "zh", Language.ZH_HANS),
    ],
)
def test_the_choice_goes_before_the_browsers_wish(cookie: str | None, accepted: str, language: Language) -> None:
    assert chosen(cookie, accepted) is language


async def test_a_page_is_in_the_language_that_is_read(pages: Pages) -> None:
    async with pages.browser(language="zh-CN") as browser:
        answer = await browser.get("/")
        assert '<html lang="zh-Hans">' in answer.text
        assert "告警" in answer.text
        await browser.get("/language/en?next=/alerts")
        assert '<html lang="en">' in (await browser.get("/")).text
