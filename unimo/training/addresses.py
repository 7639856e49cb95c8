"""Where several machines meet, as numbers: Paddle's launcher compares addresses as texts.

Given a name, no machine takes itself for the first one, and all wait for ever. What a machine calls itself is
often a loopback address (`127.0.1.1` on Debian), which the others cannot reach.
"""

from __future__ import annotations

import logging
import socket
import time

from unimo.errors import ConfigError

logger = logging.getLogger(__name__)
PATIENCE = 600.0
"""Seconds to wait for a name to exist: on Kubernetes it does once the first pod runs."""
_OUTSIDE = "192.0.2.1"
"""An address that no machine has; nothing is sent there."""


def meeting_place(address: str, port: int, patience: float = PATIENCE) -> tuple[str, str]:
    """Return the IPv4 address of the first machine, and that of this one as the first reaches it.

    Args:
        address: name or address of the first machine, the same on all.
        port: where it listens.
        patience: seconds to wait for the name to exist.

    Raises:
        ConfigError: no such name, no IPv4 address, or no way there.
    """
    master = _look_up(address, patience)
    names_loopback = address == "localhost" or address.startswith("127.")
    if master.startswith("127.") and not names_loopback:  # a machine's own name for itself: this is the first
        master = _own_address(_OUTSIDE, port) or master
    own = _own_address(master, port)
    if not own:
        raise ConfigError(f"MASTER_ADDR={address} ({master}): this machine has no network that leads there")
    return master, own


def _look_up(address: str, patience: float) -> str:
    began, told = time.monotonic(), False
    while True:
        try:
            return socket.gethostbyname(address)
        except (OSError, UnicodeError) as error:
            if time.monotonic() - began >= patience:
                raise ConfigError(
                    f"MASTER_ADDR={address!r}: no IPv4 address found ({error}); expected a name that all "
                    "machines know, or a number such as 10.0.0.1"
                ) from error
            if not told:
                logger.info("waiting for the name %s (MASTER_ADDR) to exist", address)
            told = True
            time.sleep(min(2.0, patience))


def _own_address(other: str, port: int) -> str:
    """Return this machine's address on the way to another one; empty if there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect((other, port))  # chooses a route; sends nothing
        except OSError:
            return ""
        return way.getsockname()[0]
