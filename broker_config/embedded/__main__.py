"""``python -m broker_config.embedded --directory DIR``: the embedded broker as a program of its own.

SIGHUP: it reads certificates and the list of revoked devices again.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from broker_config import embedded
from broker_config.embedded.server import CannotListenError, EmbeddedSite, serve
from broker_config.ids import BadIdError, site_id

RECORD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class _Line(logging.Formatter):
    """One event, one line, its data behind it."""

    def format(self, record: logging.LogRecord) -> str:
        data = {name: value for name, value in vars(record).items() if name not in RECORD_FIELDS}
        return " ".join([super().format(record), *(f"{name}={value}" for name, value in data.items())])


def _parser() -> argparse.ArgumentParser:
    defaults = EmbeddedSite(directory=Path())
    parser = argparse.ArgumentParser(
        prog="python -m broker_config.embedded",
        description=embedded.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--directory",
        type=Path,
        required=True,
        help="where device-ca.crt, server-ca.crt, broker.crt and broker.key lie, as rendered for Mosquitto",
    )
    parser.add_argument("--site", help="the site's id, 64 hex digits; else any that the server authority signed for")
    parser.add_argument("--device-host", help="address of the devices' listener; else every one of the machine")
    parser.add_argument("--device-port", type=int, default=defaults.device_port)
    parser.add_argument("--server-host", default=defaults.server_host)
    parser.add_argument("--server-port", type=int, default=defaults.server_port)
    parser.add_argument("--crl-file", type=Path, help="revoked devices; out of date, every device is refused")
    parser.add_argument("--pid-file", type=Path, help="written while it listens, for who sends SIGHUP")
    return parser


async def _run(site: EmbeddedSite) -> None:
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    await serve(site, stop, reload)


@contextmanager
def _announced(pid_file: Path | None) -> Iterator[None]:
    """Our pid in *pid_file* while we run."""
    if pid_file is None:
        yield
        return
    pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")
    try:
        yield
    finally:
        pid_file.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; 2 when it cannot listen."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    handler = logging.StreamHandler()
    handler.setFormatter(_Line("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    pid_file = options.pop("pid_file")
    try:
        if options["site"] is not None:
            options["site"] = site_id(options["site"])
        with _announced(pid_file):
            asyncio.run(_run(EmbeddedSite(**options)))
    except (BadIdError, CannotListenError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
