"""Blocks of key and value lines, written and read."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.access import SessionGrant
from rdvtwisted.errors import ProtocolError
from rdvtwisted.scope import Scope
from rdvtwisted.shell import parameters
from rdvtwisted.values import EndReason, Mode, RemoteSite, Role, SessionState, SessionView, TunnelParameters
from tests.shell.conversation import GRANT, KEY, PARAMETERS, SESSION, SITE, VTUN

PROPERTY = settings(derandomize=True, max_examples=200, deadline=None)

WORD = st.text("abc019-", min_size=1, max_size=32)
ID = st.from_regex(r"[a-z_][a-z0-9_-]{0,31}", fullmatch=True)
ADDRESS = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
MOMENT = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
PRINTABLE = st.text("abc.: é'", max_size=40).map(str.strip)


@st.composite
def tunnels(draw: st.DrawFn) -> TunnelParameters:
    """Parameters whose two ends are of one private /30."""
    block = int(IPv4Address("10.0.0.0")) + draw(st.integers(0, 2**22 - 1)) * 4
    own, far = draw(st.permutations([1, 2]))
    return TunnelParameters(
        session=draw(WORD),
        backend=draw(WORD),
        mode=draw(st.sampled_from(Mode)),
        join=draw(st.sampled_from(["relay", "glue"])),
        peer=draw(ID),
        peer_key=KEY,
        peer_role=draw(st.sampled_from(Role)),
        address=IPv4Interface((block + own, 30)),
        peer_address=IPv4Address(block + far),
        mtu=draw(st.integers(576, 65535)),
        door_port=draw(st.integers(1, 65535)),
        ticket=draw(WORD),
    )


SESSIONS = st.builds(
    SessionView,
    state=st.sampled_from(SessionState),
    id=st.just("") | WORD,
    master=st.just("") | ID,
    onsite=st.just("") | ID,
    mode=st.sampled_from(Mode),
    backend=st.just("") | WORD,
    join=st.sampled_from(["", "relay", "glue"]),
    selected_at=MOMENT,
    up_at=MOMENT,
    to_onsite=st.integers(0, 2**64 - 1),
    to_master=st.integers(0, 2**64 - 1),
    reason=st.none() | st.sampled_from(EndReason),
    grant=st.integers(0, 2**64 - 1),
)

GRANTS = st.builds(
    SessionGrant,
    revision=st.integers(0, 2**64 - 1),
    seconds=st.none() | MOMENT,
    scope=st.lists(
        st.sampled_from(["*", "10.0.0.1", "10.0.0.0/8:tcp", "10.0.0.1:udp/1-9", "10.0.0.0-10.0.0.9:icmp"])
    ).map(lambda texts: Scope.parse(" ".join(texts))),
)

SITES = st.builds(
    RemoteSite,
    id=ID,
    lan=st.none() | st.builds(IPv4Interface, ADDRESS),
    dns=st.lists(ADDRESS, max_size=4).map(tuple),
    hostname=PRINTABLE.map(lambda text: text or None),
    uplink=st.sampled_from([None, "lan", "3g"]),
    address=PRINTABLE,
)


def changed(text: str, key: str, value: str) -> str:
    """C{text} with another value for C{key}."""
    return "\n".join(f"{key}: {value}" if line.startswith(f"{key}:") else line for line in text.split("\n"))


class BlockTests(SynchronousTestCase):
    """What one end writes the other reads, and nothing else."""

    @given(tunnels())
    @PROPERTY
    def test_tunnel(self, value: TunnelParameters) -> None:
        """Parameters of a tunnel arrive as they were."""
        self.assertEqual(parameters.parse_tunnel(parameters.render_tunnel(value).removesuffix("\n")), value)

    @given(SESSIONS)
    @PROPERTY
    def test_session(self, value: SessionView) -> None:
        """A session arrives as it was."""
        self.assertEqual(parameters.SESSION.parse(parameters.SESSION.render(value).removesuffix("\n")), value)

    @given(GRANTS)
    @PROPERTY
    def test_grant(self, value: SessionGrant) -> None:
        """What may be done in a session arrives as it was."""
        self.assertEqual(parameters.GRANT.parse(parameters.GRANT.render(value).removesuffix("\n")), value)

    def test_session_of_older_server(self) -> None:
        """A server that knows no grants does not tell their number."""
        text = parameters.SESSION.render(evolve(SESSION, grant=7)).removesuffix("\ngrant: 7\nwaiting: \n")
        self.assertNotIn("grant", text)
        self.assertEqual(parameters.SESSION.parse(text), evolve(SESSION, grant=0))

    @given(SITES)
    @PROPERTY
    def test_site(self, value: RemoteSite) -> None:
        """A remote site arrives as it was."""
        self.assertEqual(parameters.SITE.parse(parameters.SITE.render(value).removesuffix("\n")), value)

    @given(st.binary(max_size=2000))
    @PROPERTY
    def test_authority(self, certificate: bytes) -> None:
        """A certificate arrives as it was."""
        line = parameters.render_authority(certificate).removesuffix("\n")
        self.assertEqual(parameters.parse_authority(line), certificate)

    @given(st.text(max_size=200) | st.lists(st.tuples(WORD, PRINTABLE)).map(parameters.render_pairs))
    @PROPERTY
    def test_garbage(self, text: str) -> None:
        """Anything else is refused by the one error that is meant for it."""
        for parse in [
            parameters.parse_tunnel,
            parameters.SESSION.parse,
            parameters.SITE.parse,
            parameters.GRANT.parse,
            parameters.parse_vtun,
            parameters.parse_authority,
            parameters.parse_return_time,
        ]:
            self.assertRaises(ProtocolError, parse, text)

    @given(st.data())
    @PROPERTY
    def test_spoiled(self, data: st.DataObject) -> None:
        """With any text in place of one value, a block is read or refused."""
        cases: list[tuple[parameters.Block[Any], object]] = [
            (parameters._TUNNEL, PARAMETERS),
            (parameters.SESSION, SESSION),
            (parameters.SITE, SITE),
            (parameters.GRANT, GRANT),
        ]
        block, value = data.draw(st.sampled_from(cases))
        text = block.render(value).removesuffix("\n")
        key = data.draw(st.sampled_from(sorted(block.forms)))
        try:
            block.parse(changed(text, key, data.draw(st.text(max_size=20))))
        except ProtocolError:
            pass

    def test_more_keys(self) -> None:
        """Keys that are not known are skipped: a newer server may send more."""
        text = "colour: blue\n" + parameters.render_tunnel(PARAMETERS) + "shape:"
        self.assertEqual(parameters.parse_tunnel(text), PARAMETERS)

    def test_unusable(self) -> None:
        """Each value is checked; the error names the key, never the value, which may be a secret."""
        text = parameters.render_tunnel(PARAMETERS).removesuffix("\n")
        for key, value in [
            ("session", "a b"),
            ("backend", "TLS"),
            ("mode", "L3_multi"),
            ("join", "mesh"),
            ("peer", "Rpi"),
            ("peer_role", "boss"),
            ("peer_key", "ssh-rsa AAAAC3NzaC1lZDI1NTE5"),
            ("address", "fe80::1/64"),
            ("peer_address", "192.168.128.2/30"),
            ("mtu", "68"),
            ("mtu", "1_400"),
            ("mtu", "\u0661\u0664\u0660\u0660"),
            ("door_port", "0"),
            ("door_port", "65536"),
            ("ticket", "top secret"),
            ("ticket", ""),
        ]:
            error = self.assertRaises(ProtocolError, parameters.parse_tunnel, changed(text, key, value))
            self.assertEqual(str(error), f"the server's answer has an unusable {key}")
        lacking = "\n".join(line for line in text.split("\n") if not line.startswith("mtu"))
        error = self.assertRaises(ProtocolError, parameters.parse_tunnel, lacking)
        self.assertEqual(str(error), "the server's answer lacks mtu")

    def test_ends(self) -> None:
        """The two addresses must be the two ends of one network, and that a small one."""
        wide = evolve(PARAMETERS, address=IPv4Interface(f"{PARAMETERS.address.ip}/16"))
        self.assertRaises(ProtocolError, parameters.parse_tunnel, parameters.render_tunnel(wide).removesuffix("\n"))
        for far in ["192.168.128.1", "192.168.128.5"]:
            value = evolve(PARAMETERS, peer_address=IPv4Address(far))
            self.assertRaises(
                ProtocolError, parameters.parse_tunnel, parameters.render_tunnel(value).removesuffix("\n")
            )

    def test_pairs(self) -> None:
        """Every line has a colon, and no key comes twice, nor too many."""
        self.assertEqual(parameters.parse_pairs("a: b: c\nd:"), {"a": "b: c", "d": ""})
        self.assertEqual(parameters.parse_pairs(""), {})
        for text in ["a", "a: 1\n\nb: 2", "a: 1\na: 2", "\n".join(f"k{n}: x" for n in range(100))]:
            self.assertRaises(ProtocolError, parameters.parse_pairs, text)
        self.assertEqual(parameters.render_pairs([("a", "b\nc: d\x1b")]), "a: b?c: d?\n")

    def test_vtun(self) -> None:
        """A vtun tunnel's parameters are checked as far as a device needs them, and all are kept."""
        text = parameters.render_pairs([*VTUN, ("onsite_dns", "8.8.8.8")]).removesuffix("\n")
        self.assertEqual(parameters.parse_vtun(text), (*VTUN, ("onsite_dns", "8.8.8.8")))
        for key, value in [
            ("tunnel_ip_network", "x"),
            ("tunnel_ip_prefix", "30"),
            ("tunnel_ip_prefix", "/33"),
            ("tunnelling_dev_ip_address", "192.168.128.2; reboot"),
            ("rdv_server_ip_address", ""),
            ("rdv_server_vtun_tcp_port", "70000"),
            ("tunnel_secret", "12345"),
            ("tunnel_secret", 'a"; up { program "reboot"; };'),
            ("tunnel_secret", ""),
        ]:
            self.assertRaises(ProtocolError, parameters.parse_vtun, changed(text, key, value))

    def test_secret_is_not_told(self) -> None:
        """A base64 error names the key only."""
        self.assertRaises(ProtocolError, parameters.parse_authority, "certificate_authority: ***")
        self.assertRaises(ProtocolError, parameters.parse_authority, "authority: AAAA")
