"""What the commands of ``fleet-server`` share: its configuration, and how they end."""

import sys
from pathlib import Path
from typing import Annotated, Final, NoReturn, TypeAlias

import typer

from fleet_server.config import Config, ConfigError, load
from fleet_server.parts import PartError, SettingError

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 2

ConfigFile: TypeAlias = Annotated[Path, typer.Option("--config", help="the server's fleet-server.toml")]


def loaded(path: Path) -> Config:
    """What the file says; if it cannot be used, every fault of it on stderr, and the command ends."""
    try:
        return load(path)
    except ConfigError as error:
        fail(error, EXIT_CONFIG)


def fail(error: Exception | str, code: int) -> NoReturn:
    """Say it on stderr and end the command with *code*."""
    print(error, file=sys.stderr)
    raise typer.Exit(code)


def exit_code(error: PartError) -> int:
    """Whether the configuration is to be mended, or something else."""
    return EXIT_CONFIG if isinstance(error, SettingError) else EXIT_FAILED
