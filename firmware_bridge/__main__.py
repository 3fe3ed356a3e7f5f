"""``firmware-bridge``: what this board's peripherals can be read with."""

import argparse
import json
import sys
from collections.abc import Sequence

from msgspec import NODEFAULT, structs

from firmware_bridge.cli.monitor import add_monitor
from firmware_bridge.cli.probe import add_probe
from firmware_bridge.cli.read import add_read
from firmware_bridge.cli.scan import add_scan
from firmware_bridge.cli.update import add_update
from firmware_bridge.cli.update_legacy import add_update_legacy
from firmware_bridge.cli.verify import add_verify
from firmware_bridge.cli.write import add_write
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
    """Exit codes: 0 done, 2 wrong usage; each command tells the others in its ``--help``."""
    parser = argparse.ArgumentParser(
        prog="firmware-bridge",
        description="Peripherals at a bench: what is plugged in, who it is, what it reads and takes.",
        epilog="examples: firmware-bridge scan; firmware-bridge drivers --json; each command has more in its --help",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    drivers = commands.add_parser("drivers", help="list the drivers with their options and an example")
    drivers.add_argument("--json", action="store_true", help="for programs")
    for add in (add_scan, add_probe, add_read, add_monitor, add_write, add_verify, add_update, add_update_legacy):
        add(commands)
    arguments = parser.parse_args(argv)
    if "run" in arguments:
        code = arguments.run(arguments)
        assert isinstance(code, int)
        return code
    return _drivers(as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
