"""``fleet-server signer`` and ``sign-command``: the process that holds the command key, and a command by hand."""

import os
import secrets
import sys
from typing import Annotated, Final

import typer

from broker_config.ids import ContractError, device_id
from broker_config.signing import Command
from broker_config.text import shown
from fleet_server.access.signing import SignerError, command_request
from fleet_server.adapters.signer_socket import SocketSigner
from fleet_server.cli.config_file import EXIT_CONFIG, EXIT_FAILED, ConfigFile
from fleet_server.config import ConfigError, load_socket

COMMAND_ID_BYTES: Final = 8
ERROR_CHARS_MAX: Final = 500
SIGNER_MODULE: Final = "fleet_server.signer"


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
    # in place of this process, which has the whole server in its memory
    os.execv(sys.executable, [sys.executable, "-P", "-m", SIGNER_MODULE, str(config)])  # noqa: S606


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
