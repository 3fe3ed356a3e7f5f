"""What Net-SNMP asks for the values of a controller (``pass_persist``): they are in a file that a test holds.

``{"values": {oid: [type, number]}, "writable": [oid]}``; a write changes the file. Its protocol is lines on stdin and
stdout. Source: snmpd.conf(5), MIB-Specific Extension Commands
"""

import json
import sys
from pathlib import Path

FILE = Path(sys.argv[1])


def parts(oid: str) -> list[int]:
    return [int(part) for part in oid.strip(".").split(".")]


def line() -> str:
    return sys.stdin.readline().strip()


def say(*lines: object) -> None:
    print("\n".join(map(str, lines)), flush=True)


for heard in sys.stdin:
    command = heard.strip()
    if not command:  # Net-SNMP ends a write with an empty line
        continue
    if command == "PING":
        say("PONG")
        continue
    held = json.loads(FILE.read_text())
    values = held["values"]
    oid = line().strip(".")
    if command == "getnext":
        oid = next((each for each in sorted(values, key=parts) if parts(each) > parts(oid)), "")
    if command == "set":
        _, number = line().split()
        if oid not in held["writable"]:
            say("not-writable")
            continue
        if held.get("deaf") != oid:
            values[oid][1] = int(number)
            fresh = FILE.with_suffix(".new")
            fresh.write_text(json.dumps(held))
            fresh.replace(FILE)
        say("DONE")
    elif oid in values:
        say("." + oid, *values[oid])
    else:
        say("NONE")
