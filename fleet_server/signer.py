"""The signer's process: ``fleet-server signer`` becomes it. It imports no more of the server than it needs, because
what is not there cannot be turned against the key.

Exit codes: 0 stopped, 1 failed, 2 the configuration is wrong.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

import structlog

from broker_config.text import shown
from fleet_server.access.signing import Issuer, Policy, SignerError
from fleet_server.adapters.signer_socket import SignerServer, keep_counter, read_counter
from fleet_server.adapters.signing_key import FileKey
from fleet_server.adapters.token_key import TokenSigningKey
from fleet_server.config import ConfigError, SignerPlace, load_signer

OK: Final = 0
FAILED: Final = 1
BAD_CONFIG: Final = 2
ERROR_CHARS_MAX: Final = 500


def run(config: Path) -> int:
    """Serve until SIGTERM; tells each signature on a line. See the module for what it returns."""
    _log_to_stderr()
    try:
        place = load_signer(config)
        issuer = Issuer(
            FileKey.read(place.key) if isinstance(place.key, Path) else TokenSigningKey(place.key),
            Policy(place.site, lifetime_ms_max=place.lifetime_ms_max),
            last=read_counter(place.counter_file),
            reserve=lambda counter: keep_counter(place.counter_file, counter),
        )
    except (ConfigError, SignerError, OSError) as error:
        print(shown(error, ERROR_CHARS_MAX), file=sys.stderr)  # noqa: T201
        return BAD_CONFIG
    try:
        asyncio.run(_serve(place, issuer))
    except OSError as error:
        print(shown(error, ERROR_CHARS_MAX), file=sys.stderr)  # noqa: T201
        return FAILED
    return OK


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


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
