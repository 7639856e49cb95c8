"""Names of machines become the numbers that Paddle's launcher compares; loopback does not leak."""

from __future__ import annotations

import socket

import pytest

from unimo.errors import ConfigError
from unimo.training import addresses
from unimo.training.addresses import meeting_place

ROUTES = {"10.0.0.1": "10.0.0.7", "192.0.2.1": "10.0.0.1", "127.0.1.1": "127.0.0.1", "127.0.0.1": "127.0.0.1"}


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Names that can be looked up."""
    names = {"node01": "10.0.0.1", "10.0.0.1": "10.0.0.1", "localhost": "127.0.0.1", "127.0.0.1": "127.0.0.1"}

    def look_up(name: str) -> str:
        if name not in names:
            raise socket.gaierror(-2, "Name or service not known")
        return names[name]

    monkeypatch.setattr(addresses.socket, "gethostbyname", look_up)
    monkeypatch.setattr(addresses, "_own_address", lambda other, port: ROUTES.get(other, ""))
    return names


def test_a_name_becomes_a_number(network: dict[str, str]) -> None:
    assert meeting_place("node01", 29500) == ("10.0.0.1", "10.0.0.7")
    assert meeting_place("10.0.0.1", 29500) == ("10.0.0.1", "10.0.0.7")


def test_the_first_machine_does_not_call_itself_loopback(
    network: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network["node01"] = "127.0.1.1"  # as /etc/hosts of that machine has it
    monkeypatch.setitem(ROUTES, "10.0.0.1", "10.0.0.1")
    assert meeting_place("node01", 29500) == ("10.0.0.1", "10.0.0.1")


def test_two_launchers_of_one_machine_meet_at_its_loopback(network: dict[str, str]) -> None:
    for name in ("localhost", "127.0.0.1"):
        assert meeting_place(name, 29500) == ("127.0.0.1", "127.0.0.1")


def test_a_name_that_comes_later_is_waited_for(
    network: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        network["pod-0.job"] = "10.0.0.1"

    monkeypatch.setattr(addresses.time, "sleep", sleep)
    assert meeting_place("pod-0.job", 29500) == ("10.0.0.1", "10.0.0.7")


def test_what_cannot_be_found_or_reached_is_said(network: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="MASTER_ADDR='node99': no IPv4 address"):
        meeting_place("node99", 29500, patience=0)
    network["far"] = "10.9.9.9"
    with pytest.raises(ConfigError, match=r"MASTER_ADDR=far \(10.9.9.9\): .* no network"):
        meeting_place("far", 29500)


def test_the_route_of_this_machine() -> None:
    assert addresses._own_address("127.0.0.1", 29500) == "127.0.0.1"
    assert addresses._own_address("256.0.0.1", 29500) == ""
