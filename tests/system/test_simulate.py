"""The load tool against a real broker and a real server: what it says is stored, its faults are mended."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECONDS_MAX = 60.0

pytestmark = pytest.mark.server("mosquitto")


def simulate(tmp_path: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    place, report = tmp_path / "tmp", tmp_path / "report.json"
    place.mkdir(exist_ok=True)
    ended = subprocess.run(
        [sys.executable, "-m", "fleet_server.cli", "simulate", *arguments, "--report", str(report)],
        env=os.environ | {"TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert list(place.iterdir()) == []
    return ended.returncode, ended.stdout.decode(), json.loads(report.read_bytes()) if report.exists() else {}


def test_fifty_sessions_come_back_after_a_broker_restart_below_the_rate_that_the_server_states_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    faults = "reconnect_storm,power_cut,clock_1970,duplicate_client_id,disk_full"
    code, output, report = simulate(
        tmp_path,
        *("--devices", "50", "--seconds", "4", "--every", "0.5", "--rows", "2", "--receipt-wait", "3"),
        *("--reconnect-rate", "40", "--faults", faults),
    )
    assert code == 0, output
    assert report["sessions_held_max"] == 50
    assert (report["connect_rate"], report["reconnects_a_second_max"]) == (0, 40)
    assert report["spread_s"] > 2
    assert report["connects_s_peak"] <= 40
    assert set(report["faults"]) == set(faults.split(","))
    storm, numbers = report["storm"], report["numbers"]
    assert storm["all_back_s"] > storm["broker_down_s"] > 1
    assert storm["connects_s_peak"] <= 40
    assert numbers["sealed"] == numbers["receipted"] + numbers["gone"] > 1_000
    assert numbers["stored"] == numbers["receipted"]
    assert (numbers["lost"], numbers["missing"], numbers["quarantined"], numbers["receipts_refused"]) == (0, 0, 0, 0)


def test_five_hundred_identities_are_stored_and_receipted_over_one_gateway(tmp_path: Path) -> None:
    code, output, report = simulate(
        tmp_path, "--mode", "identities", "--devices", "500", "--rate", "500", "--seconds", "3"
    )
    assert code == 0, output
    numbers = report["numbers"]
    assert report["messages_s"] == pytest.approx(500, rel=0.1)
    assert numbers["sealed"] == numbers["receipted"] == numbers["stored"] > 1_000
    assert (numbers["lost"], numbers["missing"], numbers["duplicates"]) == (0, 0, 0)
    assert 0 < report["receipt_ms_p50"] <= report["receipt_ms_p99"]
    assert 0 < report["load"]["server_cpu_share"] < 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--devices", "5", "--faults", "fire"], "expected some of power_cut"),
        (["--devices", "20000"], "sessions fit into one process"),
        (["--devices", "5", "--site", ".", "--reconnect-rate", "9"], "expected neither --dir nor --reconnect-rate"),
        (["--devices", "5", "--mode", "identities", "--broker", "embedded"], "expected --broker mosquitto"),
    ],
)
def test_what_cannot_be_is_said_at_once(tmp_path: Path, arguments: list[str], words: str) -> None:
    code, output, _ = simulate(tmp_path, *arguments)
    assert code == 2
    assert words in output
