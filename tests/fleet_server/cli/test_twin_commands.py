"""Twins and settings by commands: shown with their sources, set, their history, and a directory of files applied."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner, Result

from fleet_server.cli.__main__ import app
from fleet_server.cli.config_tree import Change, TreeError, Wanted, changes, read_tree
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from tests.fleet_server.fleet import T0, Fleet

RUNNER: Final = CliRunner()


class Desk:
    def __init__(self, fleet: Fleet, site: Path) -> None:
        self._fleet = fleet
        self._site = site

    def run(self, *arguments: str) -> Result:
        return RUNNER.invoke(app, [*arguments, "--site", str(self._site)])

    def well(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        while self._fleet.composer.turn():
            pass
        return result.stdout

    def desired(self, device: str) -> Mapping[str, Any]:
        found = json.loads(self.well("twin", "show", device, "--json"))["desired"]
        config: dict[str, Any] = {} if found is None else found["config"]
        return config


@pytest.fixture
def desk(served: tuple[Fleet, Path]) -> Desk:
    fleet, site = served
    fleet.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "HQ"), expected=None, create=True, now_ms=T0)
    for device in ("cam-1", "cam-7", "cam-8"):
        said = Registration(device, "body_camera", node="hq")
        fleet.registry.register(said, expected=None, create=True, now_ms=T0)
    return Desk(fleet, site)


def files(directory: Path, **texts: str) -> Path:
    for name, text in texts.items():
        file = directory / f"{name.replace('__', '/')}.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return directory


def test_a_device_is_set_and_shows_where_each_value_comes_from(desk: Desk) -> None:
    would = desk.well("twin", "set", "cam-1", "video=720p", "pre_event_s=60", "--dry-run")
    assert "1 devices would change" in would
    assert desk.desired("cam-1") == {}
    desk.well("twin", "set", "cam-1", "video=720p", "pre_event_s=60", "mute_allowed=true", "battery_low_pct=12.5")
    shown = desk.well("twin", "show", "cam-1")
    assert "device cam-1 @1" in shown
    assert "never reported" in shown
    assert desk.desired("cam-1") == {
        "video": "720p",
        "pre_event_s": 60,
        "mute_allowed": True,
        "battery_low_pct": 12.5,
    }
    desk.well("twin", "set", "cam-1", "--unset", "video", "--unset", "pre_event_s")
    assert desk.desired("cam-1") == {"mute_allowed": True, "battery_low_pct": 12.5}
    history = json.loads(desk.well("twin", "history", "cam-1", "--json"))["desired"]
    assert [sorted(each["config"]) for each in history] == [
        ["battery_low_pct", "mute_allowed"],
        ["battery_low_pct", "mute_allowed", "pre_event_s", "video"],
    ]
    assert "pre_event_s=60" in desk.well("twin", "history", "cam-1")
    assert json.loads(desk.well("twin", "history", "cam-1", "--reported", "--json")) == {"reported": []}
    before = json.loads(desk.well("twin", "show", "cam-1", "--at", "2026-01-01T08:00:00Z", "--json"))
    assert before["desired"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("cam-7",), 2, "expected NAME=VALUE"),
        (("cam-7", "video"), 2, "expected NAME=VALUE"),
        (("cam-7", "video=4k"), 1, "expected one of 720p"),
        (("cam-99", "video=720p"), 1, "No such device"),
    ],
)
def test_what_cannot_be_set_is_told(desk: Desk, arguments: tuple[str, ...], code: int, said: str) -> None:
    result = desk.run("twin", "set", *arguments)
    assert result.exit_code == code
    assert said in result.stderr


def test_files_are_compared_tried_and_applied(desk: Desk, tmp_path: Path) -> None:
    tree = files(
        tmp_path / "settings",
        fleet="[settings]\nkeep_alive_s = 30",
        classes__body_camera="settings.battery_low_pct = 20",
        nodes__hq="unset = ['keep_alive_s']",
        groups__night="priority = 5\nmembers = ['cam-8']\n[settings]\nvideo = '720p'",
        devices__cam_7="",
    )
    (tree / "devices" / "cam_7.toml").rename(tree / "devices" / "cam-8.toml")
    (tree / "devices" / "cam-8.toml").write_text("settings.pre_event_s = 10")
    different = desk.run("config", "diff", str(tree))
    assert different.exit_code == 1
    assert "groups/night" in different.stdout
    tried = desk.well("config", "apply", str(tree), "--dry-run")
    assert "classes/body_camera:" in tried
    assert "devices would change" in tried
    assert desk.desired("cam-8") == {}
    assert desk.run("config", "diff", str(tree)).exit_code == 1
    desk.well("config", "apply", str(tree))
    assert desk.desired("cam-8") == {"battery_low_pct": 20, "video": "720p", "pre_event_s": 10}
    assert desk.run("config", "diff", str(tree)).exit_code == 0
    assert desk.well("config", "apply", str(tree)) == ""
    (tree / "groups" / "night.toml").write_text("priority = 5")
    document = json.loads(desk.well("config", "apply", str(tree), "--json"))
    assert {(each["what"], each["before"]) for each in document["changes"]} == {
        ("members", "cam-8"),
        ("video", '"720p"'),
    }
    assert desk.desired("cam-8") == {"battery_low_pct": 20, "pre_event_s": 10}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("fleet", "video = '720p'", "unknown field `video`"),
        ("fleet", "settings = 3", "Expected `object`"),
        ("fleet", "settings.video = ['720p']", "settings"),
        ("fleet", "[settings", "Expected ']'"),
        ("groups__night", "members = []", "missing required field `priority`"),
        ("fleet", "unset = ['video']\nsettings.video = '720p'", "video: expected in settings or in unset"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(TreeError, match=name.rpartition("__")[2]) as told:
        read_tree(files(tmp_path, **{name: text}))
    assert said in str(told.value)


def test_a_directory_without_settings_is_told(desk: Desk, tmp_path: Path) -> None:
    result = desk.run("config", "diff", str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "expected fleet.toml" in result.stderr


def test_a_node_has_one_file_wherever_it_lies(tmp_path: Path) -> None:
    tree = files(tmp_path, nodes__hq__station="settings.video = '720p'", nodes__station="settings.video = '720p'")
    with pytest.raises(TreeError, match="of the same name"):
        read_tree(tree)


def test_what_is_otherwise_is_each_setting_and_member() -> None:
    wanted = Wanted("groups/night", Path("x"), {"a": 1, "b": None, "c": True}, (5, frozenset({"cam-7"})))
    assert changes(wanted, {"a": 1.5, "c": True, "d": "x"}, (5, frozenset({"cam-8"}))) == [
        Change("groups/night", "members", "", "cam-7"),
        Change("groups/night", "members", "cam-8", ""),
        Change("groups/night", "a", "1.5", "1"),
        Change("groups/night", "b", "", "unset"),
        Change("groups/night", "d", '"x"', ""),
    ]
