"""``fleet-server signer`` and ``sign-command``: the process that holds the command key, and a command by hand."""

import asyncio
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer

from broker_config.ids import ContractError, device_id
from broker_config.signing import Command
from broker_config.text import shown
from fleet_server.access.signing import Issuer, Policy, SignerError, command_request
from fleet_server.adapters.signer_socket import SignerServer, SocketSigner, keep_counter, read_counter
from fleet_server.adapters.signing_key import FileKey
from fleet_server.config import ConfigError, SignerPlace, load_signer, load_socket

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 2
COMMAND_ID_BYTES: Final = 8
ERROR_CHARS_MAX: Final = 500

ConfigFile = Annotated[Path, typer.Option("--config", help="the server's fleet-server.toml")]


def add_signer_commands(app: typer.Typer) -> None:
    """Mount both on the program's command line."""
    app.command("signer", epilog="Example: fleet-server signer --config site/server/fleet-server.toml")(signer)
    app.command(
        "sign-command",
        epilog="Example: fleet-server sign-command --config F --device car-7 --name identify > order.json",
    )(sign_command)


def signer(config: ConfigFile) -> None:
    """Sign what devices obey, for the server on this machine. Tells each signature on a line. Stops on SIGTERM.

    Exit codes: 0 stopped, 1 failed, 2 the configuration is wrong.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    try:
        place = load_signer(config)
        issuer = Issuer(
            FileKey.read(place.key_file),
            Policy(place.site, lifetime_ms_max=place.lifetime_ms_max),
            last=read_counter(place.counter_file),
            reserve=lambda counter: keep_counter(place.counter_file, counter),
        )
    except (ConfigError, SignerError, OSError) as error:
        raise _refused(error, EXIT_CONFIG) from error
    try:
        asyncio.run(_serve(place, issuer))
    except OSError as error:
        raise _refused(error, EXIT_FAILED) from error


async def _serve(place: SignerPlace, issuer: Issuer) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = SignerServer(
        issuer,
        uids=place.client_uids | {os.geteuid()},
        now_ms=lambda: time.time_ns() // 1_000_000,
        mono_ms=lambda: time.monotonic_ns() // 1_000_000,
    )
    await server.run(place.socket_file, stop)


def sign_command(
    config: ConfigFile,
    device: Annotated[str, typer.Option(metavar="ID", help="The one device that is to obey.")],
    name: Annotated[str, typer.Option(help="The command, such as identify.")],
    expires_s: Annotated[int, typer.Option(help="It is worth nothing after so long.")] = 60,
) -> None:
    """Have one command signed by the running signer, and print its envelope."""
    try:
        order = Command(1, secrets.token_hex(COMMAND_ID_BYTES), name)  # the signer looks whether it is one
        request = command_request(device_id(device), order, lifetime_ms=1000 * expires_s)
        envelope = SocketSigner(load_socket(config)).sign(request)
    except (ConfigError, ContractError) as error:
        raise _refused(error, EXIT_CONFIG) from error
    except SignerError as error:
        raise _refused(error, EXIT_FAILED) from error
    typer.echo(envelope.decode("ascii"))
    typer.echo(f"command {order.id}", err=True)


def _refused(error: Exception, code: int) -> typer.Exit:
    typer.echo(shown(error, ERROR_CHARS_MAX), err=True)
    return typer.Exit(code)
