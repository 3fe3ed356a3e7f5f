"""Net-SNMP's agent as a signal controller: messages, types, access and errors are its own, only values are ours."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firmware_bridge import ntcip
from firmware_bridge.ntcip import Oid, dotted
from tests.servers import HOST, free_port, program, wait_until

ASC: Final = "1.3.6.1.4.1.1206.4.2.1"
GLOBAL: Final = "1.3.6.1.4.1.1206.4.2.6"
START_S_MAX: Final = 30.0
CROSSING: Final = {
    f"{ASC}.1.4.1.2.1": 0b1011_1011,
    f"{ASC}.1.4.1.3.1": 0,
    f"{ASC}.1.4.1.4.1": 0b0100_0100,
    f"{ASC}.2.5.2.0": 60,
    f"{ASC}.2.5.4.1.1.1": 9,
    f"{ASC}.2.5.4.1.1.2": 6,
    f"{ASC}.2.5.4.1.2.1": 41,
    f"{ASC}.2.5.4.1.2.2": 210,
    f"{ASC}.3.5.0": 2,
    f"{ASC}.3.6.0": 2,
    f"{ASC}.3.8.0": 0b1000_0000,
    f"{ASC}.4.7.1.2.3": 90,
    f"{ASC}.4.7.1.3.3": 17,
    f"{ASC}.4.10.0": 3,
    f"{ASC}.4.14.0": 0,
}
"""Phases 3 and 7 have green, pattern 3 runs, detector 2 is at fault."""
TIME_S: Final = 1_767_225_600


@dataclass(frozen=True, slots=True)
class Controller:
    """``file``: what it holds."""

    port: int
    file: Path

    def hold(self, oid: Oid, value: int | None) -> None:
        """Have the object be *value*; None: the controller lacks it."""
        held = json.loads(self.file.read_text())
        if value is None:
            del held["values"][dotted(oid)]
        else:
            held["values"][dotted(oid)][1] = value
        self._write(held)

    def be_deaf_to(self, oid: Oid) -> None:
        """Answer writes of *oid* as done, and do nothing."""
        self._write({**json.loads(self.file.read_text()), "deaf": dotted(oid)})

    def value(self, oid: Oid) -> int:
        """What it holds."""
        found = json.loads(self.file.read_text())["values"][dotted(oid)][1]
        assert isinstance(found, int)
        return found

    def _write(self, held: object) -> None:
        fresh = self.file.with_suffix(".fresh")
        fresh.write_text(json.dumps(held))
        fresh.replace(self.file)


@contextlib.contextmanager
def controller(directory: Path) -> Iterator[Controller]:
    """It runs until the block ends. Community ``reads`` may read, ``writes`` may write as well."""
    file = directory / "values.json"
    values: dict[str, tuple[str, int]] = {oid: ("integer", value) for oid, value in CROSSING.items()}
    values[f"{GLOBAL}.3.1.0"] = ("counter", TIME_S)
    writable = [dotted(ntcip.PATTERN_CONTROL), dotted(ntcip.GLOBAL_TIME)]
    file.write_text(json.dumps({"values": values, "writable": writable}))
    script = f"{sys.executable} -S -E {Path(__file__).with_name('asc_pass.py')} {file}"
    port = free_port()
    config = directory / "snmpd.conf"
    config.write_text(
        f"agentaddress udp:{HOST}:{port}\nrocommunity reads {HOST}\nrwcommunity writes {HOST}\n"
        f"pass_persist .{ASC} {script}\npass_persist .{GLOBAL} {script}\n"
    )
    found = program("snmpd")
    assert found is not None
    command = [found, "-f", "-Lo", "-C", "-c", str(config), "-p", str(directory / "pid")]
    environment = {**os.environ, "MIBS": "", "SNMP_PERSISTENT_DIR": str(directory / "kept")}
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            wait_until(lambda: b"NET-SNMP version" in (directory / "log").read_bytes(), "snmpd", START_S_MAX)
            yield Controller(port, file)
        finally:
            process.kill()
