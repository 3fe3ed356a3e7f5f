"""Every rule has its runbook, and what a runbook says to type can be typed."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from fleet_server.__main__ import app as fleet_server
from fleet_server.alerting.rules import RULE, RUNBOOKS
from fleet_server.cli.__main__ import app as fieldfleet
from fleet_server.texts import Language, Texts

ROOT = Path(__file__).parents[3] / RUNBOOKS
PROGRAMS = {"fieldfleet": typer.main.get_command(fieldfleet), "fleet-server": typer.main.get_command(fleet_server)}


def pages(directory: Path) -> dict[str, str]:
    return {page.stem: page.read_text(encoding="utf-8") for page in directory.glob("*.md")}


@pytest.mark.parametrize(("directory", "language"), [(ROOT, Language.EN), (ROOT / "zh", Language.ZH_HANS)])
def test_each_rule_has_its_page_in_each_language_and_there_is_no_other(directory: Path, language: Language) -> None:
    text = Texts(language)
    found = pages(directory)
    assert set(found) == set(RULE)
    for name, page in found.items():
        assert page.startswith(f"# {text(RULE[name].title)}\n"), name
        assert "- `" in page, f"{name}: nothing to look with"
    assert not text.missing


@pytest.mark.parametrize("directory", [ROOT, ROOT / "zh"], ids=["en", "zh"])
def test_what_a_page_says_to_type_is_a_command_with_these_options(directory: Path) -> None:
    typed = [
        (name, shlex.split(line))
        for name, page in pages(directory).items()
        for line in re.findall(r"^- `([^`]*)`", page, flags=re.MULTILINE)
    ]
    ours = [(name, words) for name, words in typed if words[0] in PROGRAMS]
    assert len(ours) > len(RULE)
    for name, (program, *words) in ours:
        command = PROGRAMS[program]
        while words and hasattr(command, "commands"):
            assert words[0] in command.commands, f"{name}: {words}"
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, f"{name}: {words}"
        if words and "--help" not in words:
            takes = [each for each in command.params if each.param_type_name == "argument"]
            places = len(words) - 2 * sum(word.startswith("--") for word in words)
            assert (places > 0) <= bool(takes), f"{name}: {words}"
