"""An instrument that is another one than was meant is left alone."""

from pathlib import Path

import pytest

from broker_config import device_classes
from edge_agent import profile
from firmware_bridge.__main__ import main
from firmware_bridge.drivers.ascii_query import AsciiQuery, AsciiQueryOptions
from firmware_bridge.expected import Expected, wrong
from firmware_bridge.guarded import ASK_MS, Guarded
from firmware_bridge.readings import Failed, Identity, Reading
from tests.firmware_bridge.far_end import far_end

DEADLINE_S = 5.0
PROFILE = """
device_class = "interrogation_room"
[addresses]
box = ""
serial = ""
[[wires]]
stream = "room"
driver = "ascii_query"
points = {{ temp_c = "temp_c" }}
expects = {{ serial = "{serial}" }}
[wires.options]
at = "serial:{{box}}"
identity_query = "*IDN?"
"""


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (Identity("A1", "box", "1"), ""),
        (Identity("A1", "box", "2"), ""),  # its firmware is not who it is
        (Identity("A2", "box", "1"), "expected serial number A1, got A2"),
        (Identity("", "box", "1"), "expected serial number A1, got none"),  # unknown is no
        (Identity("A1", "can", "1"), "expected model box, got can"),
    ],
)
def test_who_is_another_one(told: Identity, why: str) -> None:
    assert wrong(Expected("A1", "box"), told) == why


def test_nobody_expects_nothing() -> None:
    with pytest.raises(ValueError, match="expected serial, model or both"):
        Expected()


class Box:
    """The far end: a box of serial number *serial* that counts who asks what."""

    def __init__(self) -> None:
        self.serial: str | None = "A1"
        self.asked: list[bytes] = []

    def __call__(self, data: bytes) -> bytes | None:
        self.asked.append(data)
        if self.serial is None:
            return None
        return f"Acme,box,{self.serial},1.4\n".encode() if data == b"*IDN?\n" else b"temp_c=21.5\n"


async def test_it_is_asked_who_it_is_first_after_silence_and_once_a_minute(tmp_path: Path) -> None:
    box, now_ms = Box(), 0
    async with far_end(tmp_path / "box", box):
        options = AsciiQueryOptions(at=f"serial:{tmp_path / 'box'}", query="T?\n", identity_query="*IDN?")
        driver = Guarded(AsciiQuery(options, lambda: now_ms), Expected(serial="A1"), lambda: now_ms)

        async def asked(deadline_s: float = DEADLINE_S) -> list[bytes]:
            box.asked.clear()
            await driver.read(("temp_c",), deadline_s)
            return list(box.asked)

        assert await asked() == [b"*IDN?\n", b"T?\n"]
        assert await asked() == [b"T?\n"]
        box.serial = None
        assert await asked(0.2) == [b"T?\n"]
        assert await asked(1.0) == [b"*IDN?\n"]  # silence is a fault, and no quarantine
        box.serial = "A1"
        assert await asked() == [b"*IDN?\n", b"T?\n"]
        now_ms = ASK_MS
        assert await asked() == [b"*IDN?\n", b"T?\n"]
        box.serial = "A2"  # between two readings
        assert isinstance((await driver.read(("temp_c",), DEADLINE_S))["temp_c"], Reading)
        now_ms = 2 * ASK_MS
        why = "quarantined: expected serial number A1, got A2"
        assert await driver.read(("temp_c",), DEADLINE_S) == {"temp_c": Failed(why)}
        box.serial = "A1"
        assert await asked() == []  # until an operator has it made anew
        assert await driver.write({"x": 1}, DEADLINE_S) == {"x": Failed(f"not written: {why}")}
        await driver.close()


async def test_a_profile_says_who_is_meant(tmp_path: Path) -> None:
    file, faults = tmp_path / "room.toml", list[str]()
    file.write_text(PROFILE.format(serial="{serial}"))
    room = device_classes.load("interrogation_room")
    found = profile.read(file, {"box": str(tmp_path / "box"), "serial": "A1"}, room, tmp_path, faults)
    assert not faults
    assert found is not None
    assert found.wires[0].resource == (str(tmp_path / "box"), ("ascii_query", 115_200))  # whoever is meant
    box = Box()
    box.serial = "A2"
    async with far_end(tmp_path / "box", box):
        driver = found.wires[0].driver_for(lambda: 0)
        told = await driver.read(("temp_c",), DEADLINE_S)
        assert told == {"temp_c": Failed("quarantined: expected serial number A1, got A2")}
        await driver.close()


@pytest.mark.parametrize(
    ("driver", "expects", "fault"),
    [
        ("host.cpu", '{ serial = "A1" }', "expects: host.cpu has no way to ask who is there"),
        ("ascii_query", '{ maker = "Acme" }', "expects.maker: unknown"),
        ("ascii_query", '{ serial = "" }', "expected serial, model or both"),
        ("ascii_query", '{ serial = "{nobody}" }', "expects: no address 'nobody'"),
    ],
)
def test_what_is_wrong_with_an_expectation_is_told(tmp_path: Path, driver: str, expects: str, fault: str) -> None:
    file, faults = tmp_path / "room.toml", list[str]()
    text = PROFILE.format(serial="A1").replace('{ serial = "A1" }', expects).replace('"ascii_query"', f'"{driver}"')
    file.write_text(text)
    room = device_classes.load("interrogation_room")
    profile.read(file, {"box": str(tmp_path / "box"), "serial": "A1"}, room, tmp_path, faults)
    assert any(fault in each for each in faults), faults


def test_a_bench_does_not_touch_another_one_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "room.toml"
    file.write_text(PROFILE.format(serial="A1"))
    where = ["--profile", str(file), "--stream", "room", "--address", f"box={tmp_path / 'nothing'}"]
    assert main(["write", *where, "x=1", "--deadline-s", "1"]) == 1
    assert "not written: it does not say who it is" in capsys.readouterr().out
