"""What the server holds of a session whose tunnels it ends, as a value; and what may be asked of who makes it."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rdvtwisted.errors import InvalidValue, NetworkError
from rdvtwisted.glue import LONGEST_MESSAGE, Close, Confine, GlueSpec, Open, request_from_bytes, request_to_bytes
from rdvtwisted.plan import Address, FirewallTable, LinkUp, Rule, step_from_json, step_to_json
from rdvtwisted.scope import ALL, LONGEST_SCOPE, Scope
from rdvtwisted.testing.glue import BRIDGED, ROUTED, GlueContract, MemoryGlue
from rdvtwisted.values import Lease, Mode

#: Names of the fields of a request.
FIELDS = ["do", "session", "mode", "onsite", "master", "mtu", "headers", "path", "scope"]


def lease(text: str) -> Lease:
    return Lease(IPv4Network(text))


def message(**changes: object) -> bytes:
    """A request to open a session, with some fields changed."""
    return json.dumps({**json.loads(request_to_bytes(Open(ROUTED))), **changes}).encode()


class SpecTests(SynchronousTestCase):
    """Every field is checked."""

    def refused(self, text: str, **changes: Any) -> None:
        error = self.assertRaises(InvalidValue, evolve, ROUTED, **changes)
        self.assertIn(text, str(error))
        self.assertNotIn("\n", str(error))

    def test_session(self) -> None:
        """A session's id is a short word; it gets into no path and no rule, and could."""
        for session in ("", "x" * 65, "a b", "../x", 'x"', "x\n", "ü", 7, None):
            self.refused("session", session=session)
        self.assertEqual(evolve(ROUTED, session="A-z_09").session, "A-z_09")

    def test_mtu(self) -> None:
        """An MTU is a number of bytes that the kernel takes."""
        for mtu in (0, 575, 65_522, -1, True, "1450", 1450.0, None):
            self.refused("MTU", mtu=mtu)
        for mtu in (576, 1450, 65_521):
            self.assertEqual(evolve(ROUTED, mtu=mtu).mtu, mtu)
        for path in (0, 575, True, "1450", 1450.0):
            self.refused("MTU", path=path)

    def test_scope(self) -> None:
        """Packets may be limited in a routed session; in a bridged one they cannot be."""
        self.assertRaises(TypeError, evolve, ROUTED, scope="10.0.0.1")
        error = self.assertRaises(InvalidValue, evolve, BRIDGED, scope=Scope.parse("10.0.0.1"))
        self.assertEqual(str(error), "invalid mode 'L2': destinations cannot be kept in a bridged session")

    def test_headers(self) -> None:
        """Packets have headers or not."""
        for headers in (0, 1, "yes", None):
            self.refused("headers", headers=headers)

    def test_blocks(self) -> None:
        """A block has four addresses that hosts can have; the two are not the same."""
        for text in ("192.168.128.0/29", "192.168.128.0/31", "10.0.0.0/8", "0.0.0.0/0", "192.168.128.1/32"):
            self.refused("prefix", onsite=lease(text))
            self.refused("prefix", master=lease(text))
        for text in ("127.0.0.0/30", "224.0.0.0/30", "0.0.0.0/30", "169.254.0.0/30", "255.255.255.252/30"):
            self.refused("no host", onsite=lease(text))
        self.refused("the onsite's, too", master=ROUTED.onsite)

    def test_types(self) -> None:
        """What is no value of ours is no field either."""
        for changes in ({"mode": "L3"}, {"onsite": "192.168.128.0/30"}, {"master": IPv4Network("192.168.128.0/30")}):
            self.assertRaises(TypeError, evolve, ROUTED, **changes)

    def test_modes(self) -> None:
        """A routed session needs both blocks; a bridged one has none."""
        self.refused("a block for each", onsite=None)
        self.refused("a block for each", master=None)
        self.refused("no addresses", mode=Mode.L2)
        self.assertRaises(InvalidValue, evolve, BRIDGED, onsite=lease("192.168.128.0/30"))


class StepsTests(SynchronousTestCase):
    """What is done in the namespace."""

    def test_routed(self) -> None:
        """The firewall is there before an interface is up; forwarding is switched on last."""
        kinds = [type(step).__name__ for step in ROUTED.steps]
        self.assertLess(kinds.index("FirewallTable"), kinds.index("LinkUp"))
        self.assertEqual([str(step) for step in ROUTED.steps[-2:]], [
            "sysctl net/ipv4/conf/onsite/forwarding=1",
            "sysctl net/ipv4/conf/master/forwarding=1",
        ])  # fmt: skip
        self.assertEqual(
            [str(step) for step in ROUTED.steps if isinstance(step, Address | LinkUp | Rule)],
            [
                "address 192.168.128.1/32 on onsite",
                "interface onsite up, MTU 1450",
                "address 192.168.128.5/32 on master",
                "interface master up, MTU 1450",
                "rule 20000 iif master table 20000",
            ],
        )

    def test_ipv6_first(self) -> None:
        """IPv6 is off before the first interface is up: an old device's vtund could not stand its first packet."""
        for spec in (ROUTED, BRIDGED):
            steps = [str(step) for step in spec.steps]
            up = min(number for number, step in enumerate(steps) if " up, " in step)
            off = [number for number, step in enumerate(steps) if "disable_ipv6=1" in step]
            self.assertEqual(len(off), 2 if spec is ROUTED else 3)
            self.assertLess(max(off), up)

    def test_bridged(self) -> None:
        """A bridge has no address and no route; what it keeps back it keeps back from its first frame on."""
        kinds = [type(step).__name__ for step in BRIDGED.steps]
        self.assertEqual(set(kinds), {"Sysctl", "FirewallTable", "LinkUp"})
        self.assertLess(kinds.index("FirewallTable"), kinds.index("LinkUp"))

    def test_segments(self) -> None:
        """In a bridged session TCP learns of the narrowest device, by IPv4 and IPv6."""
        for spec, sizes in ((BRIDGED, (1460, 1440)), (evolve(BRIDGED, path=1450), (1410, 1390))):
            (table,) = (step for step in spec.steps if isinstance(step, FirewallTable))
            for size in sizes:
                self.assertEqual(table.rules.count(f"maxseg size set {size}\n"), 2)

    def test_rules(self) -> None:
        """What goes into the rules comes from checked numbers only; every chain but the translation's drops."""
        (table,) = (step for step in evolve(ROUTED, mtu=1000).steps if isinstance(step, FirewallTable))
        self.assertEqual(table.rules.count("policy drop"), 3)
        self.assertIn("maxseg size set 960", table.rules)
        self.assertIn("saddr 192.168.128.6 ip daddr 192.168.128.5 icmp", table.rules)
        self.assertNotIn("{{", table.rules)

    def test_limited(self) -> None:
        """A limited session differs from one that is not in its firewall only, which refuses in both directions."""
        spec = evolve(ROUTED, scope=Scope.parse("192.168.1.10:tcp/80"))
        whole, limited = (list(each.steps) for each in (ROUTED, spec))
        [place] = [number for number, step in enumerate(whole) if step != limited[number]]
        self.assertEqual(limited[place], spec.firewall)
        assert spec.firewall is not None
        self.assertIn("ct original proto-dst 80 ct original ip daddr { 192.168.1.10 } return", spec.firewall.rules)
        self.assertEqual(spec.firewall.rules.count("jump permitted"), 2)
        self.assertEqual(evolve(spec, scope=ALL), ROUTED)

    def test_values(self) -> None:
        """The steps are ordinary ones of a plan."""
        for spec in (ROUTED, BRIDGED):
            self.assertEqual([step_from_json(step_to_json(step)) for step in spec.steps], list(spec.steps))


class RequestTests(SynchronousTestCase):
    """What may be asked for, and nothing else."""

    def test_round_trip(self) -> None:
        """A request is one short message, from which it comes back."""
        for request in (
            Open(ROUTED),
            Open(BRIDGED),
            Open(evolve(ROUTED, headers=True, mtu=9000, path=1450)),
            Open(evolve(ROUTED, scope=Scope.parse("192.168.1.10:tcp/80 10.0.0.0/8"))),
            Confine("s1", Scope.parse("192.168.1.10:tcp/80")),
            Confine("s1", Scope()),
            Close("s1"),
        ):
            data = request_to_bytes(request)
            self.assertLess(len(data), LONGEST_MESSAGE)
            self.assertEqual(request_from_bytes(data), request)

    def test_refused(self) -> None:
        """What is no request is refused in one line that says what is wrong."""
        deep = b"[" * (LONGEST_MESSAGE // 2) + b"]" * (LONGEST_MESSAGE // 2)
        for data in (
            b"",
            b"\xff",
            b"{}",
            b"[]",
            b"null",
            b'"open"',
            deep,
            b'{"do": "open"}',
            b'{"do": "close"}',
            b'{"do": "close", "session": "s1", "more": 1}',
            b'{"do": "close", "session": "../s1"}',
            b'{"do": "close", "session": ["s1"]}',
            b'{"do": "list", "session": "s1"}',
            b'{"do": ["open"], "session": "s1"}',
            request_to_bytes(Close("s1")) + b" " * LONGEST_MESSAGE,
            message(extra=1),
            message(mode="L3_multi"),
            message(mode=["L3"]),
            message(mode=None),
            message(session='s"; flush ruleset'),
            message(onsite="192.168.128.1/30"),
            message(onsite="192.168.128.0/30; flush ruleset"),
            message(onsite=3232268288),
            message(onsite=[3232268288, 30]),
            message(onsite="fd00::/126"),
            message(master=None),
            message(mtu=1e3),
            message(mtu=10**1000),
            message(mtu="1450"),
            message(headers=0),
            message(path="1450"),
            message(scope=None),
            message(scope="192.168.1.10; flush ruleset"),
            message(scope="10.0.0.1 " * (LONGEST_SCOPE // 9 + 1)),
            message(mode="L2", onsite=None, master=None, scope="10.0.0.1"),
            b'{"do": "confine", "session": "s1"}',
            b'{"do": "confine", "session": "s1", "scope": 1}',
        ):
            error = self.assertRaises(InvalidValue, request_from_bytes, data)
            self.assertNotIn("\n", str(error))
            self.assertLess(len(str(error)), 300)

    @settings(derandomize=True, max_examples=300, deadline=None)
    @given(st.binary(max_size=200) | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(FIELDS), inner, max_size=len(FIELDS)
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()))  # fmt: skip
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever comes is a request or is refused."""
        try:
            request = request_from_bytes(data)
        except InvalidValue:
            return
        self.assertIsInstance(request, Open | Confine | Close)

    @settings(derandomize=True, max_examples=300, deadline=None)
    @given(st.sampled_from(FIELDS[1:]), st.none() | st.booleans()
           | st.integers() | st.floats() | st.text(max_size=30) | st.lists(st.integers(), max_size=2))  # fmt: skip
    def test_any_field(self, name: str, value: object) -> None:
        """A field of whatever kind is usable or refused."""
        try:
            request = request_from_bytes(message(**{name: value}))
        except InvalidValue:
            return
        assert isinstance(request, Open)
        self.assertEqual(request_from_bytes(request_to_bytes(request)), request)

    def test_spec_is_whole(self) -> None:
        """No field of a spec is forgotten on the way."""
        record = json.loads(request_to_bytes(Open(ROUTED)))
        self.assertEqual(set(record) - {"do"}, set(GlueSpec.__slots__) - {"__weakref__"})


class MemoryGlueTests(GlueContract, TestCase):
    """The twin in memory."""

    def glue(self) -> MemoryGlue:
        return MemoryGlue(self.limit)

    async def test_refusal(self) -> None:
        """It refuses what it is told to, once; and everything, once it has died."""
        glue = self.glue()
        glue.refusal = NetworkError("no")
        await self.refused(glue.open(ROUTED))
        await self.opened(glue, ROUTED)
        glue.die()
        self.successResultOf(glue.ended)
        await self.refused(glue.open(BRIDGED))
        await glue.close(ROUTED.session)
