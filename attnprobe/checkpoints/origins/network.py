"""Whether there is a network, found out within seconds."""

import os
import socket
import threading
import urllib.parse
import urllib.request

SECONDS = 3.0  # to wait for an answer
_SWITCHES = ("ATTNPROBE_OFFLINE", "HF_HUB_OFFLINE")


def offline() -> str:
    """Return the environment variable that forbids the network, or nothing.

    >>> offline() in ("", "ATTNPROBE_OFFLINE", "HF_HUB_OFFLINE")
    True
    """
    yes = ("1", "true", "yes", "on")
    return next((name for name in _SWITCHES if os.environ.get(name, "").lower() in yes), "")


def reachable(address: str) -> bool:
    """Whether a host answers; no attempt is made where the environment forbids it."""
    if offline():
        return False
    host = urllib.parse.urlsplit(address)
    if urllib.request.getproxies() and not urllib.request.proxy_bypass(host.hostname or ""):
        return True  # a proxy may know the way; let it try
    found: list[bool] = []
    port = host.port or (80 if host.scheme == "http" else 443)
    # a thread, since looking up a name takes no time limit
    thread = threading.Thread(
        target=lambda: found.append(_answers(host.hostname or "", port)), daemon=True
    )
    thread.start()
    thread.join(SECONDS + 1)
    return bool(found) and found[0]


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def reason(address: str) -> str:
    """Say why an address cannot be had."""
    switch = offline()
    host = urllib.parse.urlsplit(address).hostname or address
    return f"{switch} is set" if switch else f"{host} cannot be reached"
