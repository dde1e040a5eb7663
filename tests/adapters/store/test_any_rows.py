"""Whatever stands in the database: what can be used is used, the rest is named, and permits nothing."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.access import Effect
from rdvtwisted.adapters.store import rules, tables
from rdvtwisted.adapters.store.tables import LONGEST_SHOWN
from rdvtwisted.values import Mode
from tests.adapters.store.keys import key

#: SQLite keeps in a column whatever is put there.
ANY = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=60)
    | st.binary(max_size=30)
    | st.sampled_from(["rpi1", "ann", "%labs", "*", "labs", "onsite", "master", "allow", "deny", "L3", "L3 L2", ""])
    | st.sampled_from([0, 1, 2, "1", "10.0.0.0/8 tcp/22", "::/0", "x" * 5000, key(1).line, key(1).line + "x"])
)
ROWS = st.lists(st.tuples(*[ANY] * 8), max_size=6)
PROPERTY = settings(
    derandomize=True,
    max_examples=100,
    deadline=None,
    # What is found is a handful of rows; making them fewer takes minutes.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class AnyRowsTests(SynchronousTestCase):
    """Tables without any of the constraints that ours have, full of anything."""

    def setUp(self) -> None:
        engine = create_engine("sqlite://")
        self.addCleanup(engine.dispose)
        self.connection = engine.connect()
        self.addCleanup(self.connection.close)
        driver = self.connection.connection.dbapi_connection
        assert driver is not None
        driver.text_factory = lambda data: data.decode("utf-8", "replace")
        for table in tables.METADATA.sorted_tables:
            columns = ", ".join(f"{each.name} {each.type.compile(engine.dialect)}" for each in table.columns)
            self.connection.exec_driver_sql(f"CREATE TABLE {table.name} ({columns})")

    def fill(self, name: str, rows: list[tuple[object, ...]]) -> None:
        """Put these into a table, in place of all that is there."""
        self.connection.exec_driver_sql(f"DELETE FROM {name}")
        width = len(tables.METADATA.tables[name].columns)
        for row in rows:
            self.connection.exec_driver_sql(f"INSERT INTO {name} VALUES ({', '.join('?' * width)})", row[:width])

    @PROPERTY
    @given(ROWS, ROWS)
    def test_devices(self, devices: list[tuple[object, ...]], keys: list[tuple[object, ...]]) -> None:
        """Devices that are read are whole; each other row is a line."""
        self.fill(tables.DEVICES.name, devices)
        self.fill(tables.KEYS.name, keys)
        found, problems = tables.read(self.connection)
        for id, device in found.items():
            self.assertEqual(id, device.id)
        for problem in problems:
            self.assertTrue(len(problem) < 3 * LONGEST_SHOWN and "\n" not in problem, problem)
        self.assertGreaterEqual(len(found) + len(problems), bool(devices))

    @PROPERTY
    @given(ROWS, ROWS, ROWS)
    def test_rules(
        self,
        found: list[tuple[object, ...]],
        groups: list[tuple[object, ...]],
        members: list[tuple[object, ...]],
    ) -> None:
        """What is damaged permits nothing: there are no more allows than there were rows that said so."""
        self.fill(rules.RULES.name, found)
        self.fill(rules.GROUPS.name, groups)
        self.fill(rules.MEMBERS.name, members)
        policy, problems = rules.read(self.connection)
        allows = sum(row[1] == "allow" for row in found)
        self.assertLessEqual(sum(rule.effect is Effect.ALLOW for rule in policy.rules), allows)
        for problem in problems:
            self.assertTrue(len(problem) < 3 * LONGEST_SHOWN and "\n" not in problem, problem)
        if not allows:
            self.assertIsNone(policy.decide("ann", "rpi1", Mode.L3, 0.0))
