"""Which language a visitor reads: the one they chose, else the first of their browser's that there is. Pure."""

from typing import Final

from fleet_server.texts import Language

COOKIE: Final = "fieldfleet-language"
COOKIE_S: Final = 365 * 86_400
ACCEPTED_MAX: Final = 32
"""Languages of a browser that are looked at."""
NAMES: Final = {Language.EN: "English", Language.ZH_HANS: "简体中文"}
"""Each in itself, so that who cannot read the page finds their own."""
_PRIMARY: Final = {"en": Language.EN, "zh": Language.ZH_HANS}


def chosen(cookie: str | None, accepted: str) -> Language:
    """*cookie*: what they chose, if anything; *accepted*: ``Accept-Language`` (RFC 9110)."""
    if cookie in set(Language):
        return Language(cookie)
    ranked = sorted(enumerate(accepted.split(",")[:ACCEPTED_MAX]), key=lambda each: (-_weight(each[1]), each[0]))
    for _, each in ranked:
        found = _PRIMARY.get(each.partition(";")[0].strip().partition("-")[0].lower())
        if found is not None and _weight(each) > 0:
            return found
    return Language.EN


def _weight(each: str) -> float:
    _, _, parameter = each.partition(";")
    name, _, value = parameter.strip().partition("=")
    try:
        return float(value) if name == "q" else 1.0
    except ValueError:
        return 0.0
