"""The audit trail's lines: whatever is done to them afterwards is found, and where."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.audit import LONGEST_TEXT, MAX_LINE, MAX_NUMBER, Deed, Entry, InvalidEntry, Mark, readable, timestamp
from rdvtwisted.errors import InvalidValue
from rdvtwisted.verification import Verdict, verify

TEXTS = st.text(max_size=30) | st.text(max_size=8).map(lambda text: text * LONGEST_TEXT)
COUNTS = st.none() | st.integers(-(2**80), 2**80)
DEEDS = st.builds(
    Deed,
    st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True),
    TEXTS,
    st.floats(),
    device=TEXTS,
    master=TEXTS,
    address=TEXTS,
    door=TEXTS,
    fingerprint=TEXTS,
    session=TEXTS,
    mode=TEXTS,
    backend=TEXTS,
    join=TEXTS,
    duration=st.none() | st.floats(),
    bytes_to_onsite=COUNTS,
    bytes_to_master=COUNTS,
    count=COUNTS,
    reason=TEXTS,
    detail=TEXTS,
)
CASES = settings(max_examples=30, deadline=None, derandomize=True)


def chain(deeds: Sequence[Deed], after: Mark | None = None) -> list[bytes]:
    """The lines of these deeds."""
    lines = []
    for deed in deeds:
        entry = Entry.after(after, deed.facts())
        after = entry.mark
        lines.append(entry.line)
    return lines


def trail(length: int) -> list[bytes]:
    """A trail of so many entries."""
    return chain([Deed("refused", "stranger:root", 1_704_067_200 + n, detail=f"number {n}") for n in range(length)])


def marks(lines: Sequence[bytes]) -> list[Mark]:
    """The marks of these lines."""
    return [Entry.from_line(line).mark for line in lines]


class EntryTests(SynchronousTestCase):
    """One line."""

    def test_line(self) -> None:
        """An entry is one line of JSON in one form, which other programs can check: its hash is that of the rest."""
        deed = Deed("device-added", "admin:root (uid 0)", 1_704_067_200.5, device="rpi1", duration=1.25, count=3)
        line = Entry.after(None, deed.facts()).line
        self.assertEqual(
            line,
            b'{"action":"device-added","actor":"admin:root (uid 0)","count":3,"device":"rpi1","duration_ms":1250,'
            b'"entry":0,"hash":"e0ce1c9dc065ca61c3cabe9f333e8cc987dcfa8297e8ac6759a3d5e02d10374f",'
            b'"previous":"0000000000000000000000000000000000000000000000000000000000000000",'
            b'"time":"2024-01-01T00:00:00.500Z"}\n',
        )

    @CASES
    @given(DEEDS)
    def test_round_trip(self, deed: Deed) -> None:
        """Whatever is recorded can be read again, in one line of bounded length and of printable text."""
        entry = Entry.after(Mark(MAX_NUMBER - 1, "a" * 64), deed.facts())
        self.assertEqual(Entry.from_line(entry.line).facts, entry.facts)
        self.assertLessEqual(deed.facts().items(), dict(entry.facts).items())
        self.assertLess(len(entry.line), MAX_LINE)
        self.assertEqual(entry.line.count(b"\n"), 1)
        self.assertTrue(entry.line[:-1].decode("ascii").isprintable())
        self.assertTrue(all(text.isprintable() for text in entry.facts.values() if isinstance(text, str)))

    def test_action(self) -> None:
        """An action is a word."""
        for word in ("", "Refused", "no good", "x" * 33, "-"):
            self.assertRaises(ValueError, Deed(word, "server", 0).facts)

    @CASES
    @given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
    def test_noise(self, line: bytes) -> None:
        """What is no entry is refused, whatever it is."""
        self.assertRaises(InvalidEntry, Entry.from_line, line)

    def test_other_forms(self) -> None:
        """An entry that says the same in another form is none; nor is one whose numbers are no whole ones."""
        facts = json.loads(trail(1)[0])
        for document in (
            json.dumps(facts),
            json.dumps(facts, separators=(",", ":"), sort_keys=True) + " ",
            json.dumps({**facts, "count": 1.5}, separators=(",", ":"), sort_keys=True),
            json.dumps({**facts, "count": True}, separators=(",", ":"), sort_keys=True),
            json.dumps({**facts, "count": [1]}, separators=(",", ":"), sort_keys=True),
            json.dumps({name: value for name, value in facts.items() if name != "actor"}),
            '{"entry":0,"entry":0}',
            "1" * 5000,
            "[" * 5000,
            "{}",
            "x" * MAX_LINE,
        ):
            self.assertRaises(InvalidEntry, Entry.from_line, document.encode())

    def test_readable(self) -> None:
        """Texts are printable and bounded, whatever a peer made of them."""
        self.assertEqual(readable("Lyon, Presse n\u00ba 3"), "Lyon, Presse n\u00ba 3")
        self.assertEqual(readable("a\nb\x1b[31m\udc80"), "a\\nb\\x1b[31m\\udc80")
        self.assertEqual(len(readable("x" * 10_000)), LONGEST_TEXT)

    def test_no_secret(self) -> None:
        """A password in a URL, and a private key, are left out even where nobody expects them."""
        self.assertEqual(
            readable("cannot open postgresql://rdv:hunter2@db/rdv: no"), "cannot open postgresql://rdv:***@db/rdv: no"
        )
        self.assertEqual(
            readable("key -----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END"), "key (private key)"
        )

    def test_times(self) -> None:
        """Times are in UTC, to the millisecond; a clock that is mad does no harm."""
        self.assertEqual(timestamp(1_704_067_200.9996), "2024-01-01T00:00:00.999Z")
        for mad in (float("nan"), float("inf"), 1e30):
            self.assertEqual(timestamp(mad), "1970-01-01T00:00:00.000Z")


class MarkTests(SynchronousTestCase):
    """What is noted down elsewhere."""

    def test_text(self) -> None:
        """It reads as it is written."""
        (mark,) = marks(trail(1))
        self.assertEqual(Mark.from_text(f" {mark}\n"), mark)

    def test_refused(self) -> None:
        """What is no mark is told so."""
        for text in ("", "1", "1:", ":" + "a" * 64, "-1:" + "a" * 64, "1:" + "A" * 64, "9" * 16 + ":" + "a" * 64):
            error = self.assertRaises(InvalidValue, Mark.from_text, text)
            self.assertIn("NUMBER:HASH", str(error))


class VerificationTests(SynchronousTestCase):
    """What was done to a trail is found."""

    def problem(self, lines: Sequence[bytes], **known: Mark) -> str:
        verdict = verify(lines, **known)
        self.assertIsNotNone(verdict.broken)
        return str(verdict.broken)

    def test_whole(self) -> None:
        """A trail that nobody touched is whole; so is one without entries."""
        lines = trail(5)
        self.assertEqual(verify(lines), Verdict(5, marks(lines)[-1], 0, None))
        self.assertEqual(verify([]), Verdict(0, None, 0, None))

    @CASES
    @given(st.data())
    def test_byte_changed(self, data: st.DataObject) -> None:
        """A byte that is changed, wherever it is, breaks the trail in its line."""
        lines = trail(4)
        number = data.draw(st.integers(0, 3))
        place = data.draw(st.integers(0, len(lines[number]) - 2))
        other = data.draw(st.integers(0, 255).filter(lambda byte: byte != lines[number][place]))
        changed = bytearray(lines[number])
        changed[place] = other
        lines[number] = bytes(changed)
        broken = verify(b"".join(lines).splitlines(keepends=True)).broken
        assert broken is not None
        self.assertEqual((broken.entry, broken.line), (number, number + 1))

    def test_every_byte(self) -> None:
        """There is no byte in a line that does not count."""
        lines = trail(2)
        for place in range(len(lines[0])):
            changed = bytearray(b"".join(lines))
            changed[place] ^= 1
            broken = verify(bytes(changed).splitlines(keepends=True)).broken
            assert broken is not None
            self.assertEqual(broken.entry, 0)

    def test_rewritten(self) -> None:
        """An entry that was altered, and its hash with it, does not fit to the one behind it."""
        lines = trail(4)
        lines[1] = Entry.after(marks(lines)[0], Deed("refused", "stranger:nobody", 0).facts()).line
        self.assertEqual(
            self.problem(lines),
            "broken at entry 2, line 3: it does not follow from entry 1: one of the two was replaced",
        )

    def test_removed(self) -> None:
        """An entry that was taken out is missed, the first one as any other."""
        for number in range(3):
            lines = trail(4)
            del lines[number]
            self.assertEqual(
                self.problem(lines),
                f"broken at entry {number}, line {number + 1}: entry {number} is not here: taken out",
            )
        self.assertIn("entries 1 to 2 are not here", self.problem(trail(1) + trail(4)[3:]))

    def test_duplicated(self) -> None:
        """An entry that stands twice is found."""
        lines = trail(3)
        self.assertEqual(
            self.problem([*lines, lines[1]]),
            "broken at entry 3, line 4: entry 1 stands here, behind entry 2: it was put in again, or moved",
        )

    @CASES
    @given(st.data())
    def test_reordered(self, data: st.DataObject) -> None:
        """Entries that changed places are told from entries that are gone."""
        lines = trail(6)
        first = data.draw(st.integers(0, 4))
        second = data.draw(st.integers(first + 1, 5))
        lines[first], lines[second] = lines[second], lines[first]
        self.assertEqual(
            self.problem(lines),
            f"broken at entry {first}, line {first + 1}:"
            f" entry {second} stands here, before entry {first}: they were reordered",
        )

    def test_put_in(self) -> None:
        """A line that was put in is found, be it noise or an entry of its own."""
        lines = trail(3)
        self.assertIn(
            "entry 1, line 2: the line was altered or put in", self.problem([lines[0], b"noise\n", *lines[1:]])
        )
        own = Entry.after(marks(lines)[0], Deed("refused", "server", 0).facts()).line
        self.assertIn("entry 2, line 3: entry 1 stands here", self.problem([lines[0], own, *lines[1:]]))

    def test_cut_off(self) -> None:
        """An end that was cut off is missed by who has noted down an entry of it, and by nobody else."""
        lines = trail(5)
        noted = marks(lines)
        self.assertIsNone(verify(lines[:3]).broken)
        self.assertIn("the trail ends before entry 4", self.problem(lines[:3], known=noted[4]))
        self.assertIn("the trail ends before entry 0", self.problem([], known=noted[0]))
        for mark in noted:
            self.assertIsNone(verify(lines, known=mark).broken)

    def test_written_anew(self) -> None:
        """A trail that was written anew from some entry on is found by who has noted down a later one."""
        noted = marks(trail(5))
        anew = chain([Deed("refused", "stranger:nobody", 0)] * 5)
        self.assertIsNone(verify(anew).broken)
        self.assertIn("entry 3, line 3: it is not the entry that was noted down", self.problem(anew, known=noted[2]))

    def test_part(self) -> None:
        """A later part can be checked by itself by who has the mark of the last entry before it."""
        lines = trail(5)
        noted = marks(lines)
        verdict = verify(lines[2:], after=noted[1], known=noted[1])
        self.assertEqual(verdict, Verdict(3, noted[4], 0, None))
        self.assertIn("entries 0 to 1 are not here", self.problem(lines[2:]))
        self.assertIn("does not follow from entry 1", self.problem(lines[2:], after=Mark(1, "a" * 64)))
        self.assertIn("belongs to an earlier part", self.problem(lines[2:], after=noted[1], known=noted[0]))

    def test_torn(self) -> None:
        """Half a line of a writer that was killed is no fault if the entry behind it knows of it."""
        lines = trail(2)
        half = lines[1][:40]
        entry = Entry.after(marks(lines)[1], Deed("repaired", "server", 0).facts(), torn=half)
        whole = [*lines, half + b"\n", entry.line]
        self.assertEqual(verify(whole), Verdict(3, entry.mark, 1, None))
        self.assertIn("entry 2, line 3: the torn line", self.problem([*lines, entry.line]))
        self.assertIn("altered or put in", self.problem([*lines, half[:-1] + b"\n", entry.line]))
        self.assertIn("altered or put in", self.problem([*lines, b"more\n", half + b"\n", entry.line]))
        self.assertIn("its writer was stopped within it", self.problem([*lines, half]))

    def test_torn_beginning(self) -> None:
        """Even the first entry may have been torn."""
        entry = Entry.after(None, Deed("begun", "server", 0).facts(), torn=b'{"ac')
        self.assertEqual(verify([b'{"ac\n', entry.line]), Verdict(1, entry.mark, 1, None))

    @CASES
    @given(st.lists(DEEDS, max_size=6))
    def test_any_deeds(self, deeds: list[Deed]) -> None:
        """Whatever happens, its trail is whole."""
        lines = chain(deeds)
        self.assertEqual(verify(lines).entries, len(deeds))
        self.assertIsNone(verify(lines).broken)
