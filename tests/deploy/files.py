"""The files of a deployment, as the tests read them."""

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
