"""Who asks: told by the tokens file, by one's own `authenticate`, or everyone where there is neither. The tokens themselves are in
`app/gateway/tokens.py`; what a connection does before and after it has shown one, in `app/gateway/admission.py`.

The module that the setting `auth` names has a plain blocking function:

    from app.gateway import Identity

    def authenticate(environ, token):
        user = sessions.find(token or read_cookie(environ.get("HTTP_COOKIE", "")))
        return Identity(user.name, functions=["report_*"]) if user else None

It is called in a greenlet of its own: for each request over HTTP; for each upgrade to WebSocket, and where that gave nobody, for the token
in the first message. `token` is empty where none was shown. `environ` is that of WSGI, without its streams. What it raises is logged, and
refuses. About a connection that stays it is asked again from time to time; only None takes the permission back then.
"""

import importlib
import logging
import math
import re
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

import gevent

from app.errors import HandoffError, RateLimited, SettingsError, Unauthorized, Unavailable
from app.gateway.identity import Grant, Identity
from app.gateway.rates import Limits, place_of
from app.gateway.tokens import Tokens
from app.log import untold
from app.settings import Settings

log = logging.getLogger(__name__)

MOST_TOKEN: Final = 4096
"""Characters of a token that is looked at."""

Authenticate = Callable[[dict[str, Any], str], Identity | None]

_TOKEN: Final = re.compile(rf"[\x21-\x7e]{{1,{MOST_TOKEN}}}\Z")
_BEARER: Final = re.compile(rf"[Bb]earer +([\x21-\x2b\x2d-\x7e]{{1,{MOST_TOKEN}}}) *\Z")  # a comma would be that of a second header


class _Asked(Grant):
    """What one's own `authenticate` has given; it is asked again, with the same."""

    __slots__ = ("asked_at", "environ", "token")

    def __init__(self, identity: Identity, environ: dict[str, Any], token: str) -> None:
        super().__init__(identity.subject)
        self.follow(identity)
        self.environ = environ
        self.token = token
        self.asked_at = time.monotonic()


class Authority:
    """Of one gateway process. `asks`: whether anybody is asked at all who it is; `reads_requests`: whether more than a token may tell."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        """Raises `SettingsError` where the tokens or the module cannot be used."""
        self._tokens = Tokens(settings.tokens) if settings.tokens is not None else None
        self._authenticate = _load(settings.auth) if settings.auth else None
        self._limits = limits
        self._patience = settings.handshake_timeout
        self._again_after = settings.auth_recheck or math.inf
        self._everyone = Grant.of_everyone()
        self.asks = self._tokens is not None or self._authenticate is not None
        self.reads_requests = self._authenticate is not None

    def of_request(self, environ: Mapping[str, Any]) -> Grant:
        """Who sends this request. Raises `Unauthorized`, `RateLimited`, and `Unavailable` where the answer takes too long."""
        grant = self.of_upgrade(environ)
        if grant is None:
            raise Unauthorized("show who you are: Authorization: Bearer and a token")
        return grant

    def of_upgrade(self, environ: Mapping[str, Any]) -> Grant | None:
        """As `of_request`; None where nothing was shown, so that it may still come in the first message."""
        if not self.asks:
            return self._everyone
        token = _bearer(environ.get("HTTP_AUTHORIZATION"), self._authenticate is not None)
        if not token and self._authenticate is None:
            return None
        place = place_of(environ.get("REMOTE_ADDR", ""))
        return self.of_token(token, place, strings_of(environ)) if token else self._of_what_else(strings_of(environ), place)

    def of_token(self, token: Any, place: str, environ: dict[str, Any]) -> Grant:
        """Whose token this is, which came from there (as `place_of` has it). Raises as `of_request`."""
        if not self.asks:
            return self._everyone
        if type(token) is str and _TOKEN.match(token):
            found = self._tokens.find(token) if self._tokens is not None else None
            found = found or self._ask(environ, token, place)
            if found is not None:
                return found
        raise self._refusal(place)

    def _of_what_else(self, environ: dict[str, Any], place: str) -> Grant | None:
        """Of a request without a bearer token: a cookie, or another scheme, may say who it is. Where that was too much guessing, nobody is
        asked; a token may still come."""
        shown = "HTTP_AUTHORIZATION" in environ
        try:
            found = self._ask(environ, "", place)
        except RateLimited:
            if shown:
                raise
            return None
        if found is None and shown:
            raise self._refusal(place)
        return found

    def _refusal(self, place: str) -> Unauthorized:
        self._limits.failed(place)
        log.warning("token-refused: one came from %s that is none, or is over", place)
        return Unauthorized("this token is none, or is not good any more")

    def look(self) -> None:
        """Read the tokens again, where the file has changed."""
        if self._tokens is not None:
            self._tokens.look()

    def is_due(self, grant: Grant) -> bool:
        """Whether it is time to ask about this one again."""
        return isinstance(grant, _Asked) and time.monotonic() - grant.asked_at >= self._again_after

    def ask_again(self, grant: Grant) -> None:
        """Ask; blocks. Where it is nobody any more, or somebody else, the grant is taken back."""
        assert isinstance(grant, _Asked)
        grant.asked_at = time.monotonic()
        answer = self._answer(grant.environ, grant.token)
        if isinstance(answer, HandoffError):
            return  # a database that is away for a moment must not send everyone away
        if answer is None or answer.subject != grant.subject:
            grant.revoked = True
        else:
            grant.follow(answer)

    def _ask(self, environ: dict[str, Any], token: str, place: str) -> Grant | None:
        """What one's own function says; None where there is none, or it knows nobody."""
        if self._authenticate is None:
            return None
        self._limits.check_failures(place)
        answer = self._answer(environ, token)
        if isinstance(answer, HandoffError):
            raise answer
        if answer is None:
            return None
        self._limits.check_failures(place)  # again: of many guesses at once, those past the limit are not told from each other
        grant = _Asked(answer, environ, token)
        return grant if grant.is_good else None

    def _answer(self, environ: dict[str, Any], token: str) -> Identity | HandoffError | None:
        """In a greenlet of its own: whatever it does about time-outs, ours holds."""
        asked = gevent.spawn(self._guarded, dict(environ), token)
        try:
            answer: Identity | HandoffError | None = asked.get(timeout=self._patience)
        except gevent.Timeout:
            asked.kill(block=False)
            log.error("authentication-late: it took more than %g s", self._patience)
            return Unavailable("it took too long to find out who you are; try again", retry_after=1.0)
        return answer

    def _guarded(self, environ: dict[str, Any], token: str) -> Identity | HandoffError | None:
        assert self._authenticate is not None
        try:
            answer = self._authenticate(environ, token)
            if answer is not None and not isinstance(answer, Identity):
                raise TypeError(f"authenticate wants to return an Identity or None, not {type(answer).__name__}")
        except (Unauthorized, RateLimited) as refused:
            return refused
        except BaseException as error:  # SystemExit, let through, would end the gateway; our own kill ends here as well
            if not isinstance(error, gevent.GreenletExit):
                log.error("authentication-failed", exc_info=untold(error))
            return Unauthorized("it could not be found out who you are")
        return answer


def strings_of(environ: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says of itself, without the streams and objects that go with it."""
    return {name: value for name, value in environ.items() if isinstance(value, str)}


def _bearer(header: str | None, others: bool) -> str:
    """The token in an Authorization header; empty where there is none. `others`: other schemes are somebody else's to read."""
    if header is None:
        return ""
    found = _BEARER.match(header)
    if found is None and not others:
        raise Unauthorized("an Authorization header wants Bearer and one token")
    return found[1] if found is not None else ""


def _load(module: str) -> Authenticate:
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
        raise SettingsError(f"--auth: cannot load the module {module}: {said}") from error
    authenticate = getattr(found, "authenticate", None)
    if not callable(authenticate):
        raise SettingsError(f"--auth: the module {module} has no function authenticate(environ, token)")
    function: Authenticate = authenticate
    return function
