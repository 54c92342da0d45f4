"""On which address and port servers of a far host listen: one that the runner reaches, never all."""

from __future__ import annotations

import socket

import pytest

from tau2_fleet.fleet.far.program import NODE, address_towards, free_port


@pytest.mark.parametrize(
    ("interface", "same_machine", "node", "ssh", "address"),
    [
        ("10.1.2.3", True, "n1 10.0.0.1", "", "10.1.2.3"),
        ("lo", False, "", "", "127.0.0.1"),
        (None, True, "n1 10.0.0.1", "10.0.0.9 50000 10.0.0.2 22", "127.0.0.1"),
        (None, False, "n1 10.0.0.1", "10.0.0.9 50000 10.0.0.2 22", "10.0.0.1"),
        (None, False, "n1", "10.0.0.9 50000 10.0.0.2 22", "10.0.0.2"),
    ],
)
def test_a_chosen_interface_comes_first_then_loopback_then_the_way_that_led_here(
    interface: str | None,
    same_machine: bool,
    node: str,
    ssh: str,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(NODE, node)
    monkeypatch.setenv("SSH_CONNECTION", ssh)
    assert address_towards(interface, same_machine) == address


def test_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(OSError, match="hosts.interface=none0: No such device"):
        address_towards("none0", False)


def test_the_wanted_port_is_taken_unless_somebody_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]
        assert free_port("127.0.0.1", wanted) not in (wanted, 0)
    assert free_port("127.0.0.1", wanted) == wanted
