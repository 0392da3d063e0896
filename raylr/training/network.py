"""Where a rank is in the network: the address by which Ray knows its node, and the interface that holds it.

Never what the host's own name means: many images map it to 127.0.0.1, and a host may have interfaces that lead nowhere.
"""

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

REACH_TIMEOUT_S = 10.0
_SIOCGIFADDR = 0x8915  # netdevice(7)
_IPV6_INTERFACES = Path("/proc/net/if_inet6")


@dataclass(frozen=True)
class Endpoint:
    """A rank's host by name and address, and the port at which it listens there."""

    name: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"host {self.name} ({self.address})"


def all_of(endpoints: Iterable[Endpoint], most: int = 4) -> str:
    """The hosts in words, each address once.

    >>> all_of([Endpoint("a", "10.0.0.1", 1), Endpoint("b", "10.0.0.2", 1), Endpoint("b", "10.0.0.2", 2)])
    'host a (10.0.0.1) and host b (10.0.0.2)'
    """
    hosts = list(dict.fromkeys(map(str, endpoints)))
    if len(hosts) > most:
        hosts = [*hosts[: most - 1], f"{len(hosts) - most + 1} more"]
    return " and ".join([", ".join(hosts[:-1]), hosts[-1]] if len(hosts) > 1 else hosts)


def unreachable(own: Endpoint, others: Iterable[Endpoint], timeout_s: float) -> str | None:
    """Name the first other host that does not answer at its port, with the reason; None where all do."""
    hosts = {other.address: other for other in others if other.address != own.address}
    for other in hosts.values():
        try:
            socket.create_connection((other.address, other.port), timeout_s).close()
        except OSError as error:
            reason = f"no answer within {timeout_s:g} s" if isinstance(error, TimeoutError) else error.strerror or error
            return f"{own} does not reach {other} at port {other.port}: {reason}"
    return None


def is_own(address: str) -> bool:
    """True when an interface of this host holds the address; not so behind a translation of addresses."""
    with contextlib.suppress(OSError):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
            return True
    return False


def interface_of(address: str) -> str | None:
    """The name of the interface that holds the address; None when there is none, or the system is not Linux."""
    with contextlib.suppress(OSError, ValueError):
        wanted = ipaddress.ip_address(address)
        return next((name for name, held in _addresses() if held == wanted), None)
    return None


@contextlib.contextmanager
def socket_interface(variable: str, address: str, exactly: str = "") -> Iterator[None]:
    """Name the interface of the address in an environment variable for a while, unless it is set or there is none."""
    name = None if variable in os.environ else interface_of(address)
    if name is not None:
        os.environ[variable] = f"{exactly}{name}"
    try:
        yield
    finally:
        if name is not None:
            del os.environ[variable]


def _addresses() -> Iterator[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                answer = fcntl.ioctl(asked, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                yield name, ipaddress.IPv4Address(answer[20:24])
    if _IPV6_INTERFACES.exists():
        for line in _IPV6_INTERFACES.read_text().splitlines():
            held, *_, name = line.split()
            yield name, ipaddress.IPv6Address(bytes.fromhex(held))
