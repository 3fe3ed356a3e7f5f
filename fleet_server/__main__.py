"""``fleet-server``: the program's commands; ``run`` puts the server together and runs it."""

import logging
import sys
from typing import Final

import structlog
import typer
import uvloop

from broker_config.text import shown
from fleet_server import parts
from fleet_server.cli import countersign_commands, release_commands, signers_commands, store_commands
from fleet_server.cli.config_file import EXIT_FAILED, ConfigFile, exit_code, fail, loaded
from fleet_server.cli.signer_commands import add_signer_commands
from fleet_server.cli.site_commands import add_commands
from fleet_server.parts import PartError
from fleet_server.running import Server
from fleet_server.telemetry.store import FencedError, StoreError

EXIT_FENCED: Final = 4

log = structlog.get_logger()
app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.command(epilog="Example: fleet-server run --config site/server/fleet-server.toml")
def run(config: ConfigFile) -> None:
    """Take in, keep and receipt what devices report, and answer the API. Stops cleanly on SIGTERM.

    Exit codes: 0 stopped, 1 failed, 2 the configuration is wrong, 4 another server took the shards over.
    """
    _log_to_stderr()
    settings = loaded(config)
    try:
        secrets = parts.secrets_of(settings)
        listener = parts.listener_of(settings)
        identities = parts.identities_of(settings, secrets.trusted)
        store = parts.batch_store(settings)
        operators = parts.operators(settings, secrets.token)
        senders, uploads = parts.senders_of(settings), parts.uploads_of(settings, secrets)
        server = Server(settings, secrets, store, operators, senders, listener, identities, uploads)
    except PartError as error:
        fail(error, exit_code(error))
    try:
        uvloop.run(server.run())
    except FencedError as error:
        log.critical("fenced", error=str(error))
        raise typer.Exit(EXIT_FENCED) from error
    except StoreError as error:
        log.critical("the store failed", error=shown(error))
        raise typer.Exit(EXIT_FAILED) from error
    finally:
        store.close()
        operators.engine.dispose()


store_commands.add_commands(app)
add_commands(app)
add_signer_commands(app)
countersign_commands.add_commands(app)
signers_commands.add_commands(app)
release_commands.add_commands(app)


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
