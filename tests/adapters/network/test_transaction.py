"""A plan is applied whole or not at all, and can be taken back from wherever it got stuck."""

from __future__ import annotations

import errno
from ipaddress import IPv4Interface
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import bridged, routed
from rdvtwisted.adapters.network import transaction
from rdvtwisted.adapters.network.journal import Journal
from rdvtwisted.errors import MissingPrivilege, MissingProgram, NetworkError, StateDirectoryError
from rdvtwisted.plan import LinkUp, Plan, Port, Promiscuous, Site, Sysctl, TunTap
from rdvtwisted.scope import Scope
from rdvtwisted.values import Mode
from tests.adapters.network.memory import Killed, MemoryKernel, device, refuse

OWNER = "rpi1100"
ADDRESS = IPv4Interface("192.168.128.1/30")
SITE = Site(ports=(Port("eth0", "02:00:00:00:00:01"),))


def plan_of(build: object = routed.onsite) -> Plan:
    """The plan of a device with the interfaces of L{device}."""
    assert callable(build)
    plan = build(OWNER, "rdv-t", "eth0", ADDRESS, 1400, Site())
    assert isinstance(plan, Plan)
    return plan


def limited(scope: str) -> Plan:
    """The plan of an onsite that lets only this scope pass."""
    return routed.onsite(OWNER, "rdv-t", "eth0", ADDRESS, 1400, Site(), Scope.parse(scope))


#: The plan of each role in each mode.
PLANS = (
    plan_of(routed.master),
    plan_of(routed.onsite),
    bridged.master(OWNER, "rdv-t", "eth0", 1500, SITE),
    bridged.onsite(OWNER, "rdv-t", "eth0", 1500, SITE),
    limited("192.168.1.0/24:tcp/80"),
    Plan(OWNER, (TunTap("rdv-1", Mode.L3), LinkUp("rdv-1", 1400))),
)


def fail(error: Exception) -> bool:
    """Raise it."""
    raise error


class TransactionTests(SynchronousTestCase):
    """Apply and undo, over a kernel in memory and journals on disk."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())

    def journal(self) -> Journal:
        """The journal as a new process opens it, on the same boot; locks are given back when the test ends."""
        journal = Journal(self.directory)
        self.addCleanup(journal.close)
        return journal

    def apply(self, kernel: MemoryKernel, plan: Plan) -> None:
        """Apply a plan in a process that then ends."""
        journal = Journal(self.directory)
        try:
            with kernel() as ends:
                transaction.apply(ends, journal, plan)
        finally:
            journal.close()

    def undo(self, kernel: MemoryKernel) -> list[str]:
        """Undo in a process that then ends."""
        journal = Journal(self.directory)
        try:
            with kernel() as ends:
                return transaction.undo(ends, journal, OWNER)
        finally:
            journal.close()

    def test_changes_in_order(self) -> None:
        """The changes are made in the plan's order, the firewall before forwarding, and undone in reverse."""
        kernel = device()
        self.apply(kernel, plan_of(routed.master))
        table = next(str(step) for step in plan_of().steps if str(step).startswith("firewall"))
        rule, route = (str(plan_of(routed.master).steps[number]) for number in (10, 7))
        self.assertEqual(
            kernel.changes,
            [
                "write net/ipv6/conf/rdv-t/disable_ipv6 1",
                "write net/ipv4/conf/rdv-t/rp_filter 2",
                "write net/ipv4/conf/rdv-t/accept_redirects 0",
                f"replace {table}",
                "add 192.168.128.1/32 rdv-t",
                "set rdv-t Link(up=True, mtu=1400)",
                f"add {route}",
                "write net/ipv4/conf/rdv-t/forwarding 1",
                "write net/ipv4/conf/eth0/forwarding 1",
                f"add {rule}",
            ],
        )
        kernel.changes.clear()
        self.undo(kernel)
        self.assertEqual(
            kernel.changes,
            [
                f"remove {rule}",
                "write net/ipv4/conf/eth0/forwarding 0",
                "write net/ipv4/conf/rdv-t/forwarding 0",
                f"remove {route}",
                "set rdv-t Link(up=False, mtu=1500)",
                "remove 192.168.128.1/32 rdv-t",
                f"remove {table}",
                f"forget {plan_of().steps[3].mark:#x}",  # type: ignore[union-attr]
                "write net/ipv4/conf/rdv-t/accept_redirects 1",
                "write net/ipv4/conf/rdv-t/rp_filter 1",
                "write net/ipv6/conf/rdv-t/disable_ipv6 0",
            ],
        )

    def amend(self, kernel: MemoryKernel, plan: Plan) -> None:
        """Amend a plan in a process that then ends."""
        journal = Journal(self.directory)
        try:
            with kernel() as ends:
                transaction.amend(ends, journal, plan)
        finally:
            journal.close()

    def test_amend(self) -> None:
        """Other rules take one change, whatever has happened in between; and everything can be undone as before."""
        kernel = device()
        before = kernel.snapshot()
        self.apply(kernel, plan_of())
        kernel.changes.clear()
        for scope in ("192.168.1.10:tcp/80", "192.168.1.0/24"):
            self.amend(kernel, limited(scope))
        self.amend(kernel, limited("192.168.1.0/24"))
        table = next(str(step) for step in plan_of().steps if str(step).startswith("firewall"))
        self.assertEqual(kernel.changes, [f"replace {table}"] * 2)
        self.undo(kernel)
        self.assertEqual(kernel.state, before)

    def test_amend_something_else(self) -> None:
        """Nothing but rules can be amended: another plan, or none, is refused, and nothing is changed."""
        kernel = device()
        line = "what is configured for rpi1100 is not what is to be amended"
        for _ in range(2):
            before = kernel.snapshot()
            for plan in (plan_of(routed.master), bridged.onsite(OWNER, "rdv-t", "eth0", 1500, SITE)):
                self.assertEqual(str(self.assertRaises(NetworkError, self.amend, kernel, plan)), line)
            self.assertEqual(kernel.state, before)
            self.apply(kernel, plan_of())

    def test_amend_refused(self) -> None:
        """If the kernel refuses the new rules the old ones stay, and can be undone."""
        kernel = device()
        before = kernel.snapshot()
        self.apply(kernel, plan_of())
        applied = kernel.snapshot()

        def refuse_it(_: int) -> None:
            raise refuse(errno.EINVAL)

        kernel.before_change = refuse_it
        error = self.assertRaises(NetworkError, self.amend, kernel, limited("192.168.1.10"))
        self.assertIn("the kernel refuses firewall table inet ", str(error))
        self.assertEqual(kernel.state, applied)
        kernel.before_change = lambda _: None
        self.undo(kernel)
        self.assertEqual(kernel.state, before)

    def changes(self, plan: Plan) -> tuple[int, int]:
        """How many changes it takes to apply a plan, and to undo it."""
        kernel = device()
        self.apply(kernel, plan)
        applied = len(kernel.changes)
        self.undo(kernel)
        return applied, len(kernel.changes) - applied

    def test_killed_anywhere(self) -> None:
        """Killed before any of its changes, a process leaves nothing that the next one does not put right."""
        for plan in PLANS:
            last, _ = self.changes(plan)
            self.assertGreaterEqual(last, min(len(plan.steps), 5))
            for number in range(last + 1):
                kernel = device()
                before = kernel.snapshot()

                def kill(at: int, number: int = number) -> None:
                    if at == number:
                        raise Killed

                kernel.before_change = kill
                if number < last:
                    self.assertRaises(Killed, self.apply, kernel, plan)
                else:
                    self.apply(kernel, plan)
                self.assertEqual(len(kernel.changes), number)
                kernel.before_change = lambda at: None
                self.undo(kernel)
                self.assertEqual(kernel.state, before)
                self.assertEqual(self.undo(kernel), [])

    def test_killed_while_undoing(self) -> None:
        """Killed before any change of the undoing, a process leaves the rest to the next one."""
        for plan in PLANS:
            _, last = self.changes(plan)
            for number in range(last):
                kernel = device()
                before = kernel.snapshot()
                self.apply(kernel, plan)

                def kill(at: int, number: int = kernel.attempts + number) -> None:
                    if at == number:
                        raise Killed

                kernel.before_change = kill
                self.assertRaises(Killed, self.undo, kernel)
                kernel.before_change = lambda at: None
                self.undo(kernel)
                self.assertEqual(kernel.state, before)

    def test_killed_with_its_tunnel(self) -> None:
        """The tunnel interface goes with the process that is killed; all else is as before after the next start."""
        for plan in PLANS:
            last, _ = self.changes(plan)
            for number in range(last):
                kernel = device()

                def kill(at: int, number: int = number) -> None:
                    if at == number:
                        raise Killed

                kernel.before_change = kill
                self.assertRaises(Killed, self.apply, kernel, plan)
                kernel.before_change = lambda at: None
                kernel.unplug("rdv-t")
                self.undo(kernel)
                expected = device()
                expected.unplug("rdv-t")
                self.assertEqual(kernel.state, expected.state)

    def test_refused_anywhere(self) -> None:
        """Whichever change the kernel refuses, everything is as before, and the error names the step and the reason."""
        changing = [str(step) for step in plan_of().steps if not str(step).startswith("tracked")]
        for number, step in enumerate(changing):
            kernel = device()
            before = kernel.snapshot()

            def refusing(at: int, number: int = number) -> None:
                if at == number:
                    raise refuse(errno.EBUSY)

            kernel.before_change = refusing
            error = self.assertRaises(NetworkError, self.apply, kernel, plan_of())
            self.assertEqual(str(error), f"the kernel refuses {step}: Device or resource busy")
            self.assertEqual(kernel.state, before)
            self.assertEqual(list(self.directory.glob("*.json")), [])

    def test_without_privilege(self) -> None:
        """A process that may not is told what it lacks, in one line, and has changed nothing."""
        kernel = device()
        before = kernel.snapshot()

        def refusing(at: int) -> None:
            raise refuse(errno.EPERM)

        kernel.before_change = refusing
        error = self.assertRaises(MissingPrivilege, self.apply, kernel, plan_of())
        self.assertIn("CAP_NET_ADMIN", str(error))
        self.assertNotIn("\n", str(error))
        self.assertNotIn("undone", str(error))
        self.assertEqual(kernel.state, before)

    def test_missing_program(self) -> None:
        """Without nft, everything is as before and the error says what to install."""
        kernel = device()
        before = kernel.snapshot()

        def missing(at: int) -> None:
            if at == 2:
                raise lacking

        lacking = MissingProgram("nft is not installed: install the package nftables")
        kernel.before_change = missing
        kernel.remove = lambda table: fail(lacking)  # type: ignore[method-assign]
        self.assertEqual(str(self.assertRaises(MissingProgram, self.apply, kernel, plan_of())), str(lacking))
        self.assertEqual(kernel.state, before)

    def test_refused_undo_goes_on(self) -> None:
        """One step that cannot be undone keeps no other from it, and is tried again later."""
        kernel = device()
        before = kernel.snapshot()
        self.apply(kernel, plan_of())
        first = kernel.attempts

        def refusing(at: int) -> None:
            if at == first:
                raise refuse(errno.EBUSY)

        kernel.before_change = refusing
        error = self.assertRaises(NetworkError, self.undo, kernel)
        self.assertEqual(str(error), f"the kernel refuses to undo {plan_of().steps[-1]}: Device or resource busy")
        self.assertEqual(kernel.state.rules - before.rules, {plan_of().steps[-1]})
        self.assertEqual(kernel.state.sysctls, before.sysctls)
        self.assertEqual(self.undo(kernel), [str(plan_of().steps[-1])])
        self.assertEqual(kernel.state, before)

    def test_interface_gone(self) -> None:
        """After a kill the tunnel interface is gone: the rest is swept, and named."""
        kernel = device()
        self.apply(kernel, plan_of())
        kernel.unplug("rdv-t")
        self.assertEqual(self.undo(kernel), [str(plan_of().steps[number]) for number in (10, 9, 4)])
        expected = device()
        expected.unplug("rdv-t")
        self.assertEqual(kernel.state, expected.state)

    def test_what_was_there_stays(self) -> None:
        """A rule, address and setting that were there before the plan are there after it."""
        kernel = device()
        rule, address = plan_of().steps[-1], IPv4Interface(ADDRESS.ip)
        kernel.state.rules.add(rule)  # type: ignore[arg-type]
        kernel.state.addresses.append(("rdv-t", address))
        kernel.state.sysctls["net/ipv4/conf/eth0/forwarding"] = "1"
        kernel.state.promiscuous.add("eth0")
        before = kernel.snapshot()
        for plan in PLANS:
            self.apply(kernel, plan)
            self.undo(kernel)
            self.assertEqual(kernel.state, before)

    def test_somebody_elses_wish_stays(self) -> None:
        """A setting that somebody changes during the session keeps that value."""
        kernel = device()
        self.apply(kernel, plan_of())
        kernel.state.sysctls["net/ipv4/conf/rdv-t/rp_filter"] = "0"
        self.undo(kernel)
        self.assertEqual(kernel.state.sysctls["net/ipv4/conf/rdv-t/rp_filter"], "0")

    def test_calmed_meanwhile(self) -> None:
        """An interface that somebody has made calm again, or that is gone, is no trouble."""
        kernel = device()
        plan = Plan(OWNER, (Promiscuous("eth0"),))
        before = kernel.snapshot()
        self.apply(kernel, plan)
        kernel.state.promiscuous.clear()
        self.assertEqual(self.undo(kernel), [])
        self.assertEqual(kernel.state, before)
        self.apply(kernel, plan)
        kernel.unplug("eth0")
        self.assertEqual(self.undo(kernel), [])
        self.assertRaises(NetworkError, self.apply, kernel, plan)

    def test_setting_of_a_new_interface(self) -> None:
        """An interface that the plan has made gets the settings that the plan names."""
        kernel = device()
        self.apply(kernel, PLANS[3])
        values = {
            path.split("/")[-1]: value
            for path, value in kernel.state.sysctls.items()
            if "/rdvi-" in path and value != "0"
        }
        self.assertEqual(values, {"disable_ipv6": "1", "arp_ignore": "8", "rp_filter": "1", "accept_redirects": "1"})

    def test_no_ipv6(self) -> None:
        """A kernel without IPv6 is no obstacle; one without a setting that is needed is."""
        kernel = device()
        del kernel.state.sysctls["net/ipv6/conf/rdv-t/disable_ipv6"]
        self.apply(kernel, plan_of())
        self.undo(kernel)
        missing = Plan(OWNER, (Sysctl("net/ipv4/conf/eth7/forwarding", "1"),))
        error = self.assertRaises(NetworkError, self.apply, kernel, missing)
        self.assertIn("net/ipv4/conf/eth7/forwarding=1: the kernel has no such setting", str(error))

    def test_apply_again(self) -> None:
        """A plan takes the place of what is applied under the same owner, of this process or a killed one."""
        kernel = device()
        before = kernel.snapshot()
        self.apply(kernel, plan_of(routed.master))
        self.apply(kernel, plan_of(routed.onsite))
        self.assertEqual(kernel.state.rules - before.rules, {plan_of(routed.onsite).steps[-1]})
        self.undo(kernel)
        self.assertEqual(kernel.state, before)

    def test_owners_are_apart(self) -> None:
        """Undoing one owner's plan leaves another's alone."""
        kernel = device()
        other = Plan("other", (Sysctl("net/ipv4/conf/eth0/rp_filter", "2"),))
        self.apply(kernel, other)
        before = kernel.snapshot()
        self.apply(kernel, plan_of())
        self.undo(kernel)
        self.assertEqual(kernel.state, before)

    def test_journal_first(self) -> None:
        """Where the journal cannot be written, nothing is changed."""
        self.directory.write_text("a file")
        kernel = device()
        self.assertRaises(StateDirectoryError, self.apply, kernel, plan_of())
        self.assertEqual(kernel.changes, [])

    def test_second_process(self) -> None:
        """While one process is at work for an owner, another is refused in one line and changes nothing."""
        kernel = device()
        first = self.journal()
        with kernel() as ends:
            transaction.apply(ends, first, plan_of())
            applied = kernel.snapshot()
            for attempt in (lambda: self.apply(kernel, plan_of()), lambda: self.undo(kernel)):
                error = self.assertRaises(NetworkError, attempt)
                self.assertEqual(str(error), "another process is already at work for rpi1100: stop that one first")
            self.assertEqual(kernel.state, applied)
            transaction.undo(ends, first, OWNER)
