"""Text can be read against what is behind it, in the light and in the dark (WCAG 2.2, AA)."""

import re
from pathlib import Path

import pytest

import fleet_server.pages

CSS = (Path(fleet_server.pages.__file__).parent / "static/pages.css").read_text()
TEXTS = ("text", "quiet", "link", "good", "warning", "alarm", "idle")
GROUNDS = ("ground", "raised")
CONTRAST_MIN = 4.5


def colours() -> dict[str, dict[str, str]]:
    light, dark = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in CSS.split(":root {")[1:3])
    return {"light": light, "dark": dark}


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("text", TEXTS)
def test_contrast(scheme: str, ground: str, text: str) -> None:
    found = colours()[scheme]
    light, dark = sorted((luminance(found[text]), luminance(found[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= CONTRAST_MIN


def test_nothing_is_loaded_from_elsewhere() -> None:
    room = Path(fleet_server.pages.__file__).parent
    for file in (*room.glob("static/*"), *room.glob("templates/*")):
        found = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+|@import|url\(", file.read_text())
        assert set(found) <= {"http://www.w3.org"}, file
