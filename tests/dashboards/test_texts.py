"""Every word of a dashboard is in the catalogue, and the catalogue has none that nobody says."""

import re
from collections.abc import Iterator
from importlib.resources import files as resources

import pytest
from babel.messages.pofile import read_po

from broker_config import device_classes
from dashboards.edition import Edition
from dashboards.rendered import BOARDS
from dashboards.words import CLASSES, FIELDS, STREAMS
from fleet_server.standing.measures import MEASURES
from fleet_server.texts import Language, Texts
from tests.dashboards.asked import Json, dashboards, panels

ENGLISH = re.compile(r"[A-Za-z]{3,}")
AS_THEY_ARE = {"Grafana"}
"""Names that Chinese has no word of its own for."""


class Listening(Texts):
    """Tells what was asked of it."""

    def __init__(self, language: Language) -> None:
        super().__init__(language)
        self.asked: set[str] = set()

    def __call__(self, key: str, /, **values: object) -> str:
        self.asked.add(key)
        return super().__call__(key, **values)


def rendered() -> Listening:
    text = Listening(Language.ZH_HANS)
    for made in BOARDS.values():
        made(Edition(text, pages="https://fleet.example"))
    return text


def declared() -> Iterator[str]:
    """What the tables say of what is measured."""
    for measure in MEASURES:
        yield measure.description
        yield from (field.description for field in measure.fields)
    for name in device_classes.names():
        for stream in device_classes.load(name).streams.values():
            yield from (field.description for field in stream.fields.values() if field.description)


def keys_of(room: str) -> set[str]:
    with resources("fleet_server.texts").joinpath("zh_Hans", f"{room}.po").open("rb") as opened:
        return {str(message.id) for message in read_po(opened) if message.id}


def test_a_chinese_dashboard_lacks_no_text() -> None:
    assert rendered().missing == set()


def test_what_is_measured_is_described_in_chinese() -> None:
    text = Texts(Language.ZH_HANS)
    for description in declared():
        text(description)
    assert text.missing == set()


@pytest.mark.parametrize("room", ["dashboards", "measures"])
def test_no_text_is_kept_that_nobody_says(room: str) -> None:
    assert keys_of(room) - rendered().asked - set(declared()) == set()


def test_every_class_stream_and_field_has_a_name() -> None:
    classes = [device_classes.load(name) for name in device_classes.names()]
    streams = {name: spec for kind in classes for name, spec in kind.streams.items() if spec.fields}
    assert CLASSES.keys() == {kind.name for kind in classes}
    assert STREAMS.keys() == streams.keys()
    fields = {name for kind in classes for spec in kind.streams.values() for name in spec.fields}
    assert FIELDS.keys() == fields


@pytest.mark.parametrize("path", [path for path in dashboards() if "/zh-Hans/" in path])
def test_nothing_on_a_chinese_dashboard_is_said_in_english(path: str) -> None:
    for words in said(dashboards()[path]):
        assert set(ENGLISH.findall(words)) <= AS_THEY_ARE, words


def said(board: Json) -> Iterator[str]:
    """Every word that is read: titles, descriptions, headings, words for values, units that are words."""
    yield from (board["title"], board["description"])
    yield from (variable["label"] for variable in board["templating"]["list"])
    yield from (row["title"] for row in board["panels"])
    for panel in panels(board):
        yield from (panel["title"], panel["description"], *(link["title"] for link in panel["links"]))
        config = panel["fieldConfig"]
        yield config["defaults"].get("noValue", "")
        yield config["defaults"]["unit"].partition("suffix: ")[2]
        yield from mapped(config["defaults"].get("mappings", []))
        for override in config["overrides"]:
            properties = {each["id"]: each["value"] for each in override["properties"]}
            yield properties["displayName"]
            yield from mapped(properties.get("mappings", []))
            yield from (link["title"] for link in properties.get("links", []))


def mapped(mappings: list[Json]) -> Iterator[str]:
    for mapping in mappings:
        if mapping["type"] == "value":
            yield from (result["text"] for result in mapping["options"].values())
