"""Behaviour of app.server.listeners."""

import errno
import socket

import pytest

from app.server.listeners import bind, describe


@pytest.fixture
def has_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.mark.usefixtures("has_ipv6")
@pytest.mark.parametrize("host", ["::", "[::]"])
def test_the_unspecified_ipv6_address_accepts_both_families(host):
    """With or without brackets."""
    (listener,) = bind(host, 0)
    with listener:
        listener.listen()
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), timeout=5).close()


@pytest.mark.usefixtures("has_ipv6")
def test_another_ipv6_address_accepts_only_its_own_family():
    """It can't stand for an IPv4 address."""
    (listener,) = bind("[::1]", 0)
    with listener:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        assert describe(listener) == f"http://[::1]:{listener.getsockname()[1]}"


def test_a_name_binds_all_its_addresses_to_one_port(monkeypatch):
    """Also if the system chooses the port."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found * 2)
    sockets = bind("a.name", 0)
    assert [listener.getsockname()[0] for listener in sockets] == ["127.0.0.1", "127.0.0.2"]
    assert len({listener.getsockname()[1] for listener in sockets}) == 1
    for listener in sockets:
        listener.close()


def test_an_address_that_this_machine_lacks_is_left_out(monkeypatch):
    """`localhost` often has an IPv6 address where IPv6 is turned off. Alone it is an error."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 0)) for address in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    (listener,) = bind("localhost", 0)
    listener.close()
    found.pop()
    with pytest.raises(OSError, match="Cannot assign requested address"):
        bind("localhost", 0)


def test_an_address_in_use_is_an_error():
    """Before the service has loaded anything."""
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use") as error:
        bind("127.0.0.1", other.getsockname()[1])
    assert error.value.errno == errno.EADDRINUSE


def test_an_unknown_host_is_an_error(monkeypatch):
    """Whether the name does not exist or is invalid."""
    with pytest.raises(OSError, match="not a valid host name"):
        bind("a..b", 0)

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match="Name or service not known"):
        bind("no.such.host", 0)
