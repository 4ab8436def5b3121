"""Who may talk to the server: people who hold its token, from its own page, and nobody else.

Loopback is no protection by itself: any page in the same browser can send requests there. Hence Host (against DNS
rebinding), Origin and a CSRF token (against forged requests), a SameSite cookie, and a policy under which the page runs
nothing but its own script.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Checks of one server. A check returns None, or the reason why not."""

    def __init__(self, token: str, listens_on: str) -> None:
        self._token = token
        self._loopback = is_loopback(listens_on)
        self._names = {*_LOOPBACK_NAMES, listens_on.casefold()}
        if not self._loopback:
            self._names |= {socket.gethostname().casefold(), socket.getfqdn().casefold()}
        # cookies know no ports: two servers on one machine must not share a name
        self.cookie = "charter_" + hashlib.sha256(token.encode()).hexdigest()[:12]
        self.rater_cookie = self.cookie + "_rater"

    def refuse_host(self, headers: Mapping[str, str]) -> str | None:
        """Another name in Host means that a foreign domain was pointed at us."""
        found = _HOST.fullmatch(headers.get("host", ""))
        if not found:
            return "unreadable Host"
        name = found[1].strip("[]").casefold()
        return None if name in self._names or (not self._loopback and _is_address(name)) else "unknown Host"

    def knows(self, token: str | None) -> bool:
        """Whether this is the token, compared in constant time."""
        return token is not None and hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode())

    def csrf_token(self, rater: str) -> str:
        """What the page of this rater must send with each POST; a foreign page can't read it."""
        return hmac.new(self._token.encode(), f"csrf\0{rater}".encode(), hashlib.sha256).hexdigest()

    def refuse_post(self, headers: Mapping[str, str], rater: str) -> str | None:
        """A request that changes something comes from our own page, as JSON, with its CSRF token."""
        origin = urlsplit(headers.get("origin", ""))
        if origin.scheme not in ("http", "https") or origin.netloc.casefold() != headers.get("host", "").casefold():
            return "foreign Origin"
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "foreign site"
        if headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return "not JSON"
        sent = headers.get("x-csrf-token", "").encode("utf-8", "replace")
        return None if hmac.compare_digest(sent, self.csrf_token(rater).encode()) else "wrong CSRF token"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
