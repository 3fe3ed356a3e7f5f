"""``python -m dashboards render --to DIR``: write what Grafana is to be given."""

import argparse
from pathlib import Path

from dashboards.rendered import files


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    render = commands.add_parser("render", help="write dashboards and provisioning")
    render.add_argument("--to", type=Path, default=Path(__file__).parent / "grafana", metavar="DIR")
    directory: Path = parser.parse_args().to
    for name, text in files().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
