"""``firmware-bridge``: what this board's peripherals can be read with."""

import argparse
import json
import sys
from collections.abc import Sequence

from msgspec import NODEFAULT, structs

from firmware_bridge.cli.update import add_update
from firmware_bridge.cli.update_legacy import add_update_legacy
from firmware_bridge.cli.verify import add_verify
from firmware_bridge.driver import Driver
from firmware_bridge.registry import DRIVERS, driver_class


def _options(driver: type[Driver]) -> dict[str, str]:
    """Option -> ``required`` or its default as JSON."""
    out: dict[str, str] = {}
    for field in structs.fields(driver.options_type):
        if field.default is not NODEFAULT:
            out[field.name] = json.dumps(field.default)
        elif field.default_factory is not NODEFAULT:
            out[field.name] = json.dumps(field.default_factory())
        else:
            out[field.name] = "required"
    return out


def _drivers(*, as_json: bool) -> int:
    rows: list[dict[str, object]] = []
    for name in DRIVERS:
        try:
            driver = driver_class(name)
        except ImportError as error:
            rows.append({"driver": name, "summary": f"not usable here: {error}", "points": [], "options": {}})
            continue
        rows.append(
            {
                "driver": name,
                "summary": driver.summary,
                "points": list(driver.points),
                "options": _options(driver),
                "example": driver.example,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print(f"{row['driver']:<18} {row['summary']}")
        points, options, example = row["points"], row["options"], row.get("example")
        if points:
            assert isinstance(points, list)
            print(f"{'':<18}   points   {', '.join(points)}")
        if options:
            assert isinstance(options, dict)
            print(f"{'':<18}   options  {', '.join(f'{k} ({v})' for k, v in options.items())}")
        if example:
            indented = str(example).replace("\n", "\n" + " " * 30)
            print(f"{'':<18}   example  {indented}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 2 wrong usage; those of ``verify`` and ``update`` are told by their ``--help``."""
    parser = argparse.ArgumentParser(
        prog="firmware-bridge",
        description="The device's own peripherals: which drivers there are, and how a profile wires them.",
        epilog="example: firmware-bridge drivers --json",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    drivers = commands.add_parser("drivers", help="list the drivers with their options and an example")
    drivers.add_argument("--json", action="store_true", help="for programs")
    add_verify(commands)
    add_update(commands)
    add_update_legacy(commands)
    arguments = parser.parse_args(argv)
    if "run" in arguments:
        code = arguments.run(arguments)
        assert isinstance(code, int)
        return code
    return _drivers(as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
