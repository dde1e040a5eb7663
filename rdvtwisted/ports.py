"""Where the server's doors are when nobody says otherwise."""

from __future__ import annotations

#: TCP ports of SSH (RFC 4250, section 4.7) and of TLS, which is that of HTTPS: hardly any firewall closes it.
SSH_PORT = 22
TLS_PORT = 443
