"""How long it takes until each fault is told as an alert and told to be over: ``python -m tests.faults.alerts``.

Needs root, Mosquitto and InfluxDB 1. Times are the site's, whose clock is moved in steps of up to a day; a rule that
is told at the first look after a step may have been due for most of it.
"""

import tempfile
from pathlib import Path

from tests.system.alerts_story import TOLD, story
from tests.system.drill import drilling


def main() -> None:
    """Print a line for each alert."""
    with tempfile.TemporaryDirectory() as directory, drilling(Path(directory)) as drill:
        story(drill)
        table = drill.table()
    print(f"{'rule':20} {'of':10} {'told after s':>12} {'over after s':>12}")
    for each in table:
        lasted = "lasts" if each.lasted_s is None else f"{each.lasted_s:.0f}"
        seeded = "" if each.of in TOLD else "  (follows)"
        print(f"{each.of.rule:20} {each.of.subject:10} {each.told_after_s:12.0f} {lasted:>12}{seeded}")


if __name__ == "__main__":
    main()
