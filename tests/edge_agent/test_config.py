import subprocess
import sys
from pathlib import Path

import pytest

from broker_config import device_classes
from edge_agent import config
from edge_agent.adapters import files
from edge_agent.config import ConfigError
from firmware_bridge.registry import DRIVERS
from tests.edge_agent import rig as rigs


def test_the_shipped_profile_wires_every_stream_of_its_class(tmp_path: Path) -> None:
    settings = config.load(rigs.lay_out(tmp_path, None).config)
    streams = {name: spec for name, spec in device_classes.load("host").streams.items() if name != "journal"}
    assert {wire.stream: wire.points for wire in settings.profile.wires} == {
        name: tuple(spec.fields) for name, spec in streams.items()
    }
    assert all(wire.every_s == streams[wire.stream].every_s for wire in settings.profile.wires)
    assert [wire.stream for wire in settings.profile.wires if wire.optional] == ["temperature"]
    assert settings.state_dir == tmp_path / "state"
    storage = next(wire for wire in settings.profile.wires if wire.stream == "storage")
    assert getattr(storage.options, "path", None) == str(tmp_path / "state")


def faults_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as found:
        config.load(path)
    return list(found.value.faults)


def test_every_fault_of_the_file_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(
        'device = "Car_7"\ndevice_class = "host"\nprofile = "host"\nseal = 5\n'
        '[broker]\nhost = "x"\nport = "1883"\nca_file = "a"\nkey_file = "c"\nkeep_alive_s = 500\n'
        '[receipts]\nmac_file = ""\n'
    )
    faults = faults_of(tmp_path / "agent.toml")
    assert [fault.split(":")[0] for fault in faults] == [
        "seal",
        "device",
        "broker.port",
        "broker.cert_file",
        "broker.keep_alive_s",
        "receipts.mac_file",
    ]
    assert "broker.port: Expected `int`, got `str`, the value is '1883'" in faults


def test_every_fault_of_the_profile_is_told_with_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(
        'device_class = "camera"\ncolour = 1\n'
        '[[wires]]\nstream = "cpu"\ndriver = "host.memory"\n'
        '[[wires]]\nstream = "cpu"\ndriver = "host.cpu"\nevery_s = 0\n'
        '[[wires]]\nstream = "journal"\ndriver = "modbus"\n'
        '[[wires]]\nstream = "memory"\ndriver = "ascii_query"\noptions = { at = "usb:1", speed = 9600 }\n'
        '[[wires]]\nstream = "memory"\ndriver = "ascii_query"\noptions = { at = "usb:1" }\n'
    )
    rig = rigs.lay_out(tmp_path, None, profile="bad.toml")
    (tmp_path / "key").unlink()
    assert faults_of(rig.config) == [
        "profile bad: colour: unknown",
        "profile bad: device_class: expected 'host', got 'camera'",
        (
            "profile bad: wires[1].points: host.memory does not read cpu_pct, load_1m; "
            "expected of available_bytes, used_pct"
        ),
        "profile bad: wires[2].every_s: Expected `float` >= 0.05, the value is 0",
        "profile bad: wires[3].stream: expected one of cpu, memory, storage, network, temperature, got 'journal'",
        f"profile bad: wires[3].driver: expected one of {', '.join(DRIVERS)}, got 'modbus'",
        "profile bad: wires[4].options.speed: unknown",
        "profile bad: wires[5]: stream memory is wired twice",
        "profile bad: wires[5].options: expected tcp:HOST:PORT, unix:PATH or serial:PATH, got 'usb:1'",
        f"broker.key_file: no file {tmp_path / 'key'}",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("device = ", "agent.toml: Invalid value (at end of document)"),
        ("", "device: missing"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "agent.toml").write_text(text)
    assert faults_of(tmp_path / "agent.toml")[0] == fault


def test_no_file_is_a_fault(tmp_path: Path) -> None:
    assert faults_of(tmp_path / "agent.toml") == ["agent.toml: No such file or directory"]


SIGNERS = b'{"t":"signers","v":1,"version":1,"site":"' + b"5e" * 32 + b'","signers":[]}'


def test_without_a_signers_file_nobody_may_order_anything(tmp_path: Path) -> None:
    assert config.load(rigs.lay_out(tmp_path, None).config).signers_file is None


def test_a_signers_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    rig = rigs.lay_out(tmp_path, None, extra='[orders]\nsigners_file = "signers.json"\n')
    assert faults_of(rig.config) == ["orders.signers_file: no file signers.json"]


@pytest.mark.parametrize(
    ("text", "mode", "fault"),
    [
        (SIGNERS, 0o664, "others may write it"),  # whoever can write it commands the device
        (SIGNERS, 0o646, "others may write it"),
        (b"{}", 0o644, "missing required field"),
        (SIGNERS[:-1] + b',"more":1}', 0o644, "unknown field"),
        (b" " * 65_537, 0o644, "at most 65536 bytes"),
    ],
)
def test_what_is_no_signers_file(tmp_path: Path, text: bytes, mode: int, fault: str) -> None:
    path = tmp_path / "signers.json"
    path.write_bytes(text)
    path.chmod(mode)
    with pytest.raises(files.BadKeysError, match=fault):
        files.read_signers(path)


def test_a_signers_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "signers.json"
    path.write_bytes(SIGNERS + b"\n")
    path.chmod(0o644)
    assert files.read_signers(path).signers == ()


# Uploads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uploads", "expected"),
    [
        ("[uploads.folders.videos]\n", ["uploads.folders.videos: unknown; host has logs"]),
        ("[uploads]\nhold_h = 71\n[uploads.folders.logs]\n", ["uploads.hold_h: Expected `float` >= 72.0"]),
        ("[uploads.folders.logs]\nfoldr = 'x'\n", ["uploads.folders.logs.foldr: unknown"]),
        ("[uploads.limits.x]\nhours = '25:00-01:00'\n", ["uploads.limits.x.hours: Expected `str` matching"]),
        (
            "[uploads.limits.x]\nbytes_per_s = 1\n",
            ["uploads.limits.x: bytes_per_s: expected 0 or at least 1024, got 1"],
        ),
    ],
)
def test_what_is_wrong_with_uploads_is_told(tmp_path: Path, uploads: str, expected: list[str]) -> None:
    told = faults_of(rigs.lay_out(tmp_path, None, extra=uploads).config)
    assert [fault.startswith(start) for fault, start in zip(told, expected, strict=True)] == [True], told


def test_a_device_without_folders_loads_nothing_of_uploads(tmp_path: Path) -> None:
    rig = rigs.lay_out(tmp_path, None)
    code = (
        "import sys; from pathlib import Path; from edge_agent import agent, config;"
        f"settings = config.load(Path({str(rig.config)!r})); assert settings.uploads is None;"
        "print([name for name in sys.modules if name.split('.')[-1] in"
        " {'uploading', 'sender', 'transfer', 'manifest', 'upload_tables', 'link_rules'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
