"""Which packets may go where: what people write, and the algebra of it."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import InvalidValue
from rdvtwisted.scope import ALL, LONGEST_SCOPE, MOST_PORTS, PROTOCOLS, Destination, Scope

# A small world, in which everything can be tried: eight addresses at each end of all, some ports at the edges.
_EDGE = [*range(8), *range(2**32 - 8, 2**32)]
_PORTS = [0, 1, 2, 79, 80, 81, 65534, 65535]

_addresses = st.tuples(st.sampled_from(_EDGE), st.sampled_from(_EDGE)).map(sorted)
_ranges = st.tuples(st.sampled_from(_PORTS), st.sampled_from(_PORTS)).map(lambda pair: tuple(sorted(pair)))


@st.composite
def destinations(draw: st.DrawFn) -> Destination:
    """Any destination of the small world."""
    first, last = draw(_addresses)
    protocol = draw(st.sampled_from(PROTOCOLS))
    ports = draw(st.lists(_ranges, max_size=3)) if protocol in ("tcp", "udp") else []
    return Destination(IPv4Address(first), IPv4Address(last), protocol, tuple(ports))


def covers(destination: Destination, address: int, protocol: str, port: int) -> bool:
    """Whether a destination means this, in the plainest words."""
    return (
        int(destination.first) <= address <= int(destination.last)
        and destination.protocol in ("any", protocol)
        and (not destination.ports or any(first <= port <= last for first, last in destination.ports))
    )


WORLD = [
    (address, protocol, port)
    for address in _EDGE
    for protocol in PROTOCOLS[1:]
    for port in (_PORTS if protocol in ("tcp", "udp") else [0])
]


def members(scope: Scope) -> set[tuple[int, str, int]]:
    """All that a scope permits in the small world."""
    return {point for point in WORLD if scope.permits(IPv4Address(point[0]), point[1], point[2])}


class DestinationTests(SynchronousTestCase):
    """What people write for a destination."""

    def assertWritten(self, text: str, written: str | None = None) -> None:
        self.assertEqual(str(Destination.parse(text)), written or text)

    def test_forms(self) -> None:
        """Addresses in each of their forms, alone and with a protocol and ports, are kept as they were written."""
        for text in (
            "192.168.1.0/24",
            "192.168.1.10",
            "192.168.1.10-192.168.1.19",
            "*",
            "192.168.1.10:tcp/80,443",
            "192.168.1.0/24:udp/5000-5999,53",
            "192.168.1.10:icmp",
            "*:tcp/22",
            "10.0.0.0/8:other",
            "10.0.0.0/8:tcp",
        ):
            self.assertWritten(text)

    def test_same(self) -> None:
        """What can be said in several ways is written in one."""
        self.assertWritten(" 192.168.1.7/24 ", "192.168.1.0/24")
        self.assertWritten("0.0.0.0/0", "*")
        self.assertWritten("10.0.0.1-10.0.0.1:TCP/80-80", "10.0.0.1:tcp/80")
        self.assertWritten("10.0.0.0-10.0.0.255:any", "10.0.0.0/24")

    def test_refused(self) -> None:
        """What cannot be a destination is refused, with the forms that there are."""
        for text in (
            "",
            "web",
            "192.168.1.300",
            "192.168.1.0/33",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1:",
            "10.0.0.1:sctp",
            "10.0.0.1:tcp/",
            "10.0.0.1:tcp/65536",
            "10.0.0.1:tcp/9-1",
            "10.0.0.1:tcp/http",
            "10.0.0.1:tcp/-1",
            "10.0.0.1:icmp/8",
            "10.0.0.1/80",
            "fe80::1",
            "10.0.0.1:tcp/\u0661",
            "10.0.0.1:tcp/" + ",".join(["1"] * (MOST_PORTS + 1)),
        ):
            error = self.assertRaises(InvalidValue, Destination.parse, text)
            self.assertIn("use ADDRESS", str(error))


class ScopeTests(SynchronousTestCase):
    """Sets of what may be reached."""

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(st.lists(destinations(), max_size=4), st.lists(destinations(), max_size=4))
    def test_algebra(self, some: list[Destination], others: list[Destination]) -> None:
        """Union, intersection and difference permit exactly what they should, point by point."""
        one, other = Scope.of(some), Scope.of(others)
        expected_one = {point for point in WORLD if any(covers(each, *point) for each in some)}
        expected_other = {point for point in WORLD if any(covers(each, *point) for each in others)}
        self.assertEqual(members(one), expected_one)
        self.assertEqual(members(one | other), expected_one | expected_other)
        self.assertEqual(members(one & other), expected_one & expected_other)
        self.assertEqual(members(one - other), expected_one - expected_other)

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(st.lists(destinations(), max_size=6), st.randoms(use_true_random=False))
    def test_one_form(self, some: list[Destination], random: object) -> None:
        """Scopes that permit the same are equal, however they came about; and their text makes the same again."""
        scope = Scope.of(some)
        shuffled = list(some)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        self.assertEqual(Scope.of(shuffled), scope)
        self.assertEqual(Scope.of(scope.destinations()), scope)
        self.assertEqual(Scope.parse(str(scope)), scope)
        self.assertEqual((scope - Scope.of(some[:1])) | (scope & Scope.of(some[:1])), scope)

    def test_everything(self) -> None:
        """All of it is one word; nothing is none."""
        self.assertEqual(str(ALL), "*")
        self.assertEqual(str(Scope()), "")
        self.assertFalse(Scope())
        self.assertEqual(Scope.parse("0.0.0.0/1 128.0.0.0/1"), ALL)
        self.assertEqual(ALL - ALL, Scope())

    def test_text(self) -> None:
        """A scope reads as one would say it."""
        scope = Scope.parse("192.168.1.0/24:tcp/80 192.168.1.0/24:tcp/81,443 192.168.1.9") - Scope.parse(
            "192.168.1.1 *:icmp"
        )
        self.assertEqual(
            str(scope),
            "192.168.1.0:tcp/80-81,443 192.168.1.2-192.168.1.8:tcp/80-81,443"
            " 192.168.1.9:tcp 192.168.1.9:udp 192.168.1.9:other 192.168.1.10-192.168.1.255:tcp/80-81,443",
        )

    def test_many_ports(self) -> None:
        """More ports than one destination names are several destinations, and mean the same."""
        scope = Scope.of([Destination.parse(f"10.0.0.1:tcp/{port}") for port in range(1, 400, 2)])
        self.assertEqual(len(list(scope.destinations())), 4)
        self.assertEqual(Scope.parse(str(scope)), scope)

    def test_too_many(self) -> None:
        """A list that is too long is refused before it is read."""
        error = self.assertRaises(InvalidValue, Scope.parse, "x" * (LONGEST_SCOPE + 1))
        self.assertEqual(str(error), "invalid list of destinations: it has more than 65536 characters")

    def test_too_intricate(self) -> None:
        """A list that is short, but whose destinations overlap so that they cut one another to pieces, is refused."""
        words = [f"{IPv4Address(i)}-{IPv4Address(65535 - i)}:tcp/{2 * i}" for i in range(1, 1800)]
        error = self.assertRaises(InvalidValue, Scope.parse, " ".join(words))
        self.assertEqual(str(error), "invalid list of destinations: too many of them overlap")

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.text(alphabet="0123456789./-:,* tcpudanyhermio", max_size=60))
    def test_hostile(self, text: str) -> None:
        """Whatever a peer sends for a scope is a scope or one clear line."""
        try:
            scope = Scope.parse(text)
        except InvalidValue as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertEqual(Scope.parse(str(scope)), scope)
