"""``python -m dashboards render --to DIR``: write what Grafana is to be given."""

import argparse
from pathlib import Path
from zoneinfo import available_timezones

from dashboards.alerts import MAIL
from dashboards.edition import BROWSER
from dashboards.rendered import Telling, files
from fleet_server.texts import Language


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    render = commands.add_parser("render", help="write dashboards and provisioning")
    render.add_argument("--to", type=Path, default=Path(__file__).parent / "grafana", metavar="DIR")
    render.add_argument(
        "--language",
        type=Language,
        action="append",
        choices=tuple(Language),
        metavar="LANGUAGE",
        help=f"of the dashboards: {', '.join(Language)}; may be given again; all of them, if not given",
    )
    render.add_argument(
        "--timezone",
        type=_timezone,
        default=BROWSER,
        metavar="ZONE",
        help=f"as IANA names it, such as Asia/Shanghai; default: {BROWSER}, of whoever looks",
    )
    render.add_argument(
        "--pages",
        type=_address,
        default="",
        metavar="URL",
        help="of the fleet server's pages, such as https://fleet.example: dashboards get links to them",
    )
    render.add_argument(
        "--runbooks",
        type=_address,
        default="",
        metavar="URL",
        help="below which docs/runbooks is, such as https://wiki.example/fieldfleet: alerts link there",
    )
    render.add_argument("--mail", default=MAIL, metavar="ADDRESS", help="whom Grafana mails alerts; default: nobody")
    told = parser.parse_args()
    telling = Telling(told.runbooks and f"{told.runbooks}/", told.mail)
    for name, text in files(tuple(told.language or Language), told.timezone, told.pages, telling).items():
        path = told.to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


def _timezone(name: str) -> str:
    if name not in {BROWSER, "utc", *available_timezones()}:
        raise argparse.ArgumentTypeError(f"expected {BROWSER} or a zone as IANA names it, got {name!r}")
    return name


def _address(text: str) -> str:
    if text and not text.startswith(("https://", "http://")):
        raise argparse.ArgumentTypeError(f"expected a URL, got {text!r}")
    return text.rstrip("/")


if __name__ == "__main__":
    main()
