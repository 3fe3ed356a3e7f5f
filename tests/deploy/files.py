"""The files of a deployment, as the tests read them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
COMPOSE: Final = ROOT / "compose.yaml"

Json: TypeAlias = dict[str, Any]


def compose() -> Json:
    """``compose.yaml`` with its anchors resolved."""
    document: Json = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return document


def services() -> dict[str, Json]:
    """Every service by its name."""
    found: dict[str, Json] = compose()["services"]
    return found


def nginx_laid_out(directory: Path, changes: Mapping[str, str]) -> Path:
    """A copy of the files that nginx's container mounts, with *changes*, each needed; the main one."""
    texts = {
        name: (DEPLOY / "nginx" / name).read_text(encoding="utf-8") for name in ("nginx.conf", "fieldfleet.conf")
    }
    for old, new in {"/tmp/": f"{directory}/", "/dev/stdout": f"{directory}/requests", **changes}.items():
        assert any(old in text for text in texts.values()), old
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    return directory / "nginx.conf"
