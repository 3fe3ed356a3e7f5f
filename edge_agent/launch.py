"""``python -I -m edge_agent.launch DIRECTORY run --config agent.toml``: starts the agent whose turn it is.

DIRECTORY has two places for an agent beside the one that was installed on the board, which nothing overwrites:

    DIRECTORY/a, b          each a virtual environment, made of a release by :mod:`edge_agent.install_release`
    DIRECTORY/places.json   which release is in force, which one is on trial, which were given up and why

Rule 1: a release on trial that was started TRIAL_STARTS_MAX times and not committed is given up: the board goes back
by itself, whatever the new agent does or fails to do.
Rule 2: the number of starts is on the disk before the agent is started.
Rule 3: a release that was given up is not tried again (``given_up``), until a person has it forgotten.
Rule 4: what cannot be read, or is not there, is no reason not to start: the installed agent is always there.

It has nothing but the standard library, and its process becomes the agent's, which is told of DIRECTORY by the
environment: an agent that was started otherwise is not replaced.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

PLACES: Final = ("a", "b")
INSTALLED: Final = ""
"""The place of the agent that starts this one; its release has no name."""
FILE: Final = "places.json"
ENVIRONMENT: Final = "FIELDFLEET_PLACES"
"""Where an agent reads that other agents are put in DIRECTORY."""
TRIAL_STARTS_MAX: Final = 3
GIVEN_UP_MAX: Final = 16
"""Remembered; the newest."""
CHARS_MAX: Final = 300
WRONG_USAGE: Final = 2


@dataclass(frozen=True)
class Release:
    """``name``: its path in the list of releases, empty for the installed one. ``counter``: its release counter."""

    place: str = INSTALLED
    name: str = ""
    counter: int = 0


@dataclass(frozen=True)
class Places:
    """All that is stored. ``given_up``: names of releases and why, oldest first."""

    in_force: Release = field(default_factory=Release)
    trial: Release | None = None
    starts: int = 0
    given_up: tuple[tuple[str, str], ...] = ()

    def why_given_up(self, name: str) -> str:
        """Empty: it was not."""
        return dict(self.given_up).get(name, "")

    @property
    def free(self) -> str:
        """The place that a release can be put into: nobody needs what is there."""
        return next(place for place in PLACES if place != self.in_force.place)


def turn(places: Places) -> tuple[Places, Release]:
    """The agent is to be started: what is to be stored first, and which it is."""
    if places.trial is None:
        return places, places.in_force
    if places.starts >= TRIAL_STARTS_MAX:
        back = given_up(places, f"started {places.starts} times and never confirmed")
        return back, back.in_force
    return replace(places, starts=places.starts + 1), places.trial


def tried(places: Places, name: str, counter: int) -> Places:
    """The release that was put into the free place is to be tried from the next start on."""
    return replace(places, trial=Release(places.free, name, counter), starts=0)


def committed(places: Places) -> Places:
    """The release on trial has proved itself."""
    return places if places.trial is None else replace(places, in_force=places.trial, trial=None, starts=0)


def given_up(places: Places, why: str) -> Places:
    """The release on trial has not."""
    if places.trial is None:
        return places
    others = [each for each in places.given_up if each[0] != places.trial.name]
    kept = [*others, (places.trial.name, why[:CHARS_MAX])][-GIVEN_UP_MAX:]
    return replace(places, trial=None, starts=0, given_up=tuple(kept))


def running(places: Places, directory: Path, prefix: str) -> Release:
    """Which one an agent is whose interpreter has *prefix* (``sys.prefix``)."""
    for release in (places.trial, places.in_force):
        if release is not None and release.place and Path(prefix) == directory / release.place:
            return release
    return Release()


def read(directory: Path) -> Places:
    """What is stored. Raises OSError, ValueError: it is there and cannot be read."""
    import json  # noqa: PLC0415  # memory of every agent, which asks this module only for a name

    try:
        text = (directory / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Places()
    try:
        told = json.loads(text)
        trial = told["trial"]
        places = Places(
            Release(**told["in_force"]),
            None if trial is None else Release(**trial),
            int(told["starts"]),
            tuple((str(name), str(why)) for name, why in told["given_up"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{FILE}: expected what this program has written: {error!r}") from error
    known = (INSTALLED, *PLACES)
    if places.in_force.place not in known or (places.trial is not None and places.trial.place not in PLACES):
        raise ValueError(f"{FILE}: expected a place of {known}")
    return places


def write(directory: Path, places: Places) -> None:
    """Durably, whole or not at all. Raises OSError."""
    import json  # noqa: PLC0415  # as above

    new = directory / f"{FILE}.new"
    with new.open("w", encoding="utf-8") as file:
        json.dump(asdict(places), file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(directory / FILE)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def python_of(directory: Path, release: Release) -> Path:
    """The interpreter that is this release's."""
    return directory / release.place / "bin" / "python" if release.place else Path(sys.executable)


def _chosen(directory: Path) -> Release:
    """By rule 4 never an error."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = read(directory)
        places, release = turn(before)
        if places != before:
            write(directory, places)
    except (OSError, ValueError) as error:
        _say(f"the installed agent is started: {error}")
        return Release()
    if before.trial is not None and places.trial is None:
        _say(f"{before.trial.name} is given up: {places.why_given_up(before.trial.name)}")
    return release


def _say(text: str) -> None:
    print(f"edge-agent-launch: {text}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: the agent's; 2: wrong usage."""
    given = list(sys.argv[1:] if argv is None else argv)
    if len(given) < 2 or given[0].startswith("-"):
        _say("expected DIRECTORY and arguments of edge-agent, as: /var/lib/fieldfleet-agent/places run --config ...")
        return WRONG_USAGE
    directory = Path(given[0]).absolute()
    release = _chosen(directory)
    for each in dict.fromkeys((release, Release())):
        python = python_of(directory, each)
        try:
            # it becomes the agent
            os.execve(  # noqa: S606
                python,
                [str(python), "-I", "-m", "edge_agent", *given[1:]],
                {**os.environ, ENVIRONMENT: str(directory)},
            )
        except OSError as error:
            _say(f"{python}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
