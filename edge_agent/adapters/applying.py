"""Has a handler apply its settings, and looks whether they are in force. Both say what went wrong; empty: nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, assert_never

import msgspec

from broker_config.text import shown
from broker_config.twin import SettingValue
from edge_agent.adapters import program
from edge_agent.adapters.files import write_durably
from edge_agent.adapters.program import ProgramError
from edge_agent.handlers import ByAgent, ByFile, ByProgram, Handler

FILE_MODE: Final = 0o644

Values = Mapping[str, SettingValue]


async def apply(handler: Handler, values: Values) -> str:
    """May be repeated, and then changes nothing."""
    match handler:
        case ByAgent():
            return ""
        case ByFile():
            return _write(Path(handler.path), values)
        case ByProgram():
            return await _run(handler.argv, values, handler.seconds_max)
        case _:
            assert_never(handler)


def can_tell(handler: Handler) -> bool:
    """Whether :func:`check` says anything of what is in force."""
    return not isinstance(handler, ByProgram) or bool(handler.check)


async def check(handler: Handler, values: Values) -> str:
    """Of a handler that cannot tell nothing is known to be wrong."""
    match handler:
        case ByAgent():
            return ""
        case ByFile():
            return _look(Path(handler.path), values)
        case ByProgram():
            return await _run(handler.check, values, handler.seconds_max) if handler.check else ""
        case _:
            assert_never(handler)


def _write(path: Path, values: Values) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, msgspec.json.encode(values), FILE_MODE)
    except OSError as error:
        return f"{path.name}: {error.strerror or error}"
    return ""


def _look(path: Path, values: Values) -> str:
    expected = msgspec.json.encode(values)
    try:
        with path.open("rb") as file:
            found = file.read(len(expected) + 1)
    except OSError as error:
        return f"{path.name}: {error.strerror or error}"
    return "" if found == expected else f"{path.name}: another one has written it"


async def _run(argv: tuple[str, ...], values: Values, seconds_max: float) -> str:
    name = Path(argv[0]).name
    try:
        ran = await program.run(argv, msgspec.json.encode(values), seconds_max=seconds_max)
    except ProgramError as error:
        return f"{name}: {error}"
    if ran.code == 0:
        return ""
    said = shown(ran.output.decode(errors="replace").strip())
    return f"{name} ended with {ran.code}: {said}" if said else f"{name} ended with {ran.code}"
