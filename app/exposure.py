"""What has to be so before a port listens to other machines: one table for both ports, read before anything is accepted.

A rule that is not kept ends the start with a line that says how to keep it, unless its setting says in so many words that it need not be;
then, and for rules that have no such setting, there is a warning. Nothing is said of a port that only this machine reaches.
"""

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from app.address import Address
from app.errors import SettingsError
from app.settings import Settings


class Rule(NamedTuple):
    """`role`: who listens, `worker` or `gateway`. `risk` is said of an address that it begins with; `remedy` is what to do. `waiver` is the
    name of the setting (yes or no) that lets it pass with a warning; an empty one: it is only ever warned of."""

    role: str
    kept: Callable[[Settings], bool]
    risk: str
    remedy: str
    waiver: str


def _knows_who_talks(settings: Settings) -> bool:
    return settings.secret is not None or (settings.text.tls and settings.text_ca is not None)


def _is_sealed(settings: Settings) -> bool:
    return settings.text.tls


def _asks_who_it_is(settings: Settings) -> bool:
    return settings.tokens is not None or bool(settings.auth)


def _knows_its_pages(settings: Settings) -> bool:
    return bool(settings.origins)


def _seals_its_port(settings: Settings) -> bool:
    return settings.ws_cert is not None


def _is_not_root(settings: Settings) -> bool:
    return os.geteuid() != 0


_SECRET = "share a secret (--secret-file), or demand certificates (--text tls://…, --text-cert, --text-key, --text-ca)"
_TOKENS = "give out tokens (--tokens), or ask in your own way who comes (--auth)"
_ORIGINS = "say from where pages may come (--origins https://example.org)"
_USER = "start it as a user of its own"

RULES = (
    Rule("worker", _knows_who_talks, "takes any task from whoever can connect to it", _SECRET, "insecure_text"),
    Rule("worker", _is_not_root, "is open to other machines while tasks run as root", _USER, "allow_root"),
    Rule("worker", _is_sealed, "sends in clear what others can read and change on the way", "use tls://", ""),
    Rule("gateway", _is_not_root, "is open to other machines while it runs as root", _USER, "allow_root"),
    Rule("gateway", _asks_who_it_is, "takes any task from whoever can connect to it", _TOKENS, "insecure_ws"),
    Rule("gateway", _knows_its_pages, "is open to browsers, and no page is named that may come", _ORIGINS, "insecure_ws"),
    Rule("gateway", _seals_its_port, "sends tokens and results in clear", "give it a certificate (--ws-cert), or a proxy that has one", ""),
)
FLAGS = {"worker": "--text", "gateway": "--ws"}


def check(settings: Settings, addresses: Mapping[str, Address]) -> list[str]:
    """What to warn of, where these roles really listen there. Raises `SettingsError` where a rule is neither kept nor waived."""
    _check_tls(settings, addresses)
    warnings = []
    for rule in RULES:
        address = addresses.get(rule.role)
        if address is None or address.is_loopback or rule.kept(settings):
            continue
        if rule.waiver and not getattr(settings, rule.waiver):
            flag = "--" + rule.waiver.replace("_", "-")
            raise SettingsError(f"{FLAGS[rule.role]}: {address} {rule.risk}; {rule.remedy}, or say {flag} yes")
        warnings.append(f"the {rule.role} at {address} {rule.risk}; {rule.remedy}")
    return warnings


def _check_tls(settings: Settings, addresses: Mapping[str, Address]) -> None:
    """A certificate that nothing is sealed with would be a false comfort."""
    if settings.text_cert is not None and "worker" in addresses and not any(one.tls for one in (settings.text, *settings.pool)):
        raise SettingsError(f"--text-cert is given, but --text is {settings.text}, without TLS; write tls:// before the address")
