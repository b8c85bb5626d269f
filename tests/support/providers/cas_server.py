"""A small CAS server. Whoever opens `/cas/login?service=…` is logged in as `user` of its behaviour, and sent back.

Behaviour: `user`, `attributes` (name → values), `broken` (text in place of every validation), `code` (its status),
`proxies` (whether tickets are said to be a proxy's).
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).parent))

from base import Handler, serve

TICKETS: dict[str, tuple[str, str]] = {}  # ticket → service, user


class CasServer(Handler):
    """CAS 1, 2 and 3, as far as the protocol's specification describes the validation of tickets."""

    def answer(self, path: str, query: dict[str, str], form: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if path == "/cas/login":
            ticket = f"ST-{secrets.token_hex(8)}"
            TICKETS[ticket] = (query["service"], self.behaviour.get("user", "alice"))
            separator = "&" if "?" in query["service"] else "?"
            return 302, {"Location": f"{query['service']}{separator}ticket={ticket}"}, b""
        if "broken" in self.behaviour:
            return self.behaviour.get("code", 200), {}, self.behaviour["broken"].encode()
        service, user = TICKETS.pop(query.get("ticket", ""), ("", ""))
        valid = bool(user) and service == query.get("service")
        if path == "/cas/validate":
            return 200, {}, f"yes\n{user}\n".encode() if valid else b"no\n\n"
        if path not in ("/cas/serviceValidate", "/cas/proxyValidate", "/cas/p3/proxyValidate"):
            return 404, {}, b""
        inner = (
            self._success(user)
            if valid
            else "<cas:authenticationFailure code='INVALID_TICKET'>no</cas:authenticationFailure>"
        )
        xml = f"<cas:serviceResponse xmlns:cas='http://www.yale.edu/tp/cas'>{inner}</cas:serviceResponse>"
        return 200, {"Content-Type": "application/xml"}, xml.encode()

    def _success(self, user: str) -> str:
        attributes = "".join(
            f"<cas:{name}>{escape(value)}</cas:{name}>"
            for name, values in self.behaviour.get("attributes", {}).items()
            for value in values
        )
        proxies = (
            "<cas:proxies><cas:proxy>https://evil</cas:proxy></cas:proxies>" if self.behaviour.get("proxies") else ""
        )
        return (
            f"<cas:authenticationSuccess><cas:user>{escape(user)}</cas:user>"
            f"<cas:attributes>{attributes}</cas:attributes>{proxies}</cas:authenticationSuccess>"
        )


if __name__ == "__main__":
    serve(CasServer)
