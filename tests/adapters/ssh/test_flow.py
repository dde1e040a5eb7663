"""Nobody's slowness fills the memory of the other end; and a connection can end one direction at a time."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.conch.ssh import connection as numbers
from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, ITransport
from twisted.internet.protocol import Factory
from twisted.protocols.basic import FileSender
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.ssh.channel import FORWARD_WINDOW, HIGH_WATER, PACKET_SIZE
from rdvtwisted.adapters.ssh.remote import RemoteShell
from rdvtwisted.adapters.ssh.stream import StreamChannel
from rdvtwisted.adapters.ssh.wire import uint32
from rdvtwisted.shell.shell import OUTPUT_LIMIT
from tests.adapters.ssh.test_refusals import Probe
from tests.adapters.ssh.world import Listener, Recorder, World

CHUNK = 50_000
#: Characters that one command may print beyond the limit.
LONGEST_ANSWER = 2000


@implementer(IHalfCloseableProtocol)
class Half(Recorder):
    """Knows that a connection has two directions."""

    def __init__(self) -> None:
        super().__init__()
        self.read_ended = False

    def readConnectionLost(self) -> None:
        self.read_ended = True

    def writeConnectionLost(self) -> None:
        pass


@implementer(IPushProducer)
class Source:
    """Writes a lot, as long as it may."""

    def __init__(self, consumer: StreamChannel, total: int) -> None:
        self.consumer = consumer
        self.left = total
        self.paused = False
        consumer.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        while self.left and not self.paused:
            size = min(CHUNK, self.left)
            self.left -= size
            self.consumer.write(bytes(size))

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.left = 0


class Unread(Probe):
    """Does not read, until it is told to."""

    unread = 0
    prompts = 0
    reading = False

    def received(self, stream: int, data: bytes) -> None:
        self.data += data
        self.unread += len(data)
        if self.reading:
            self.read()

    def read(self) -> None:
        """Read from now on; the prompts are counted."""
        self.reading = True
        unread, self.unread = self.unread, 0
        self.prompts += self.data.count(b"rpi1100$ ")
        self.data = self.data[-8:] if not self.data.endswith(b"rpi1100$ ") else b""
        self.credit(unread)


class FlowTestCase(World):
    """Has forwards, whose ends are protocols C{near}, at the device, and C{far}, at the server."""

    def setUp(self) -> None:
        super().setUp()
        self.link = self.log_in()

    def forward(self, kind: type[Recorder] = Recorder) -> tuple[Any, Any]:
        """A forward between two protocols of that kind."""
        far = kind()
        self.reception.forwards["127.0.0.1", 5000] = lambda: succeed(far)
        near = self.result(self.link.endpoint("127.0.0.1", 5000).connect(Factory.forProtocol(kind)))
        return near, far


class SlowReaderTests(FlowTestCase):
    """Megabytes for somebody who does not read."""

    total = 20 << 20

    def stall(self, writer: Any, reader: Any) -> Source:
        """Let one end write to the other, which does not read; neither keeps more than it said."""
        reader.transport.pauseProducing()
        source = Source(writer.transport, self.total)
        self.pump()
        sent = self.total - source.left
        self.assertTrue(source.paused)
        self.assertEqual(reader.data, b"")
        self.assertLessEqual(writer.transport.waiting_bytes, HIGH_WATER + CHUNK)
        self.assertLessEqual(sent, FORWARD_WINDOW + HIGH_WATER + CHUNK)
        self.assertGreater(sent, FORWARD_WINDOW)
        return source

    def test_upload(self) -> None:
        """What a target at the server does not read stays with the device; nothing is lost when it reads again."""
        near, far = self.forward()
        self.stall(near, far)
        far.transport.resumeProducing()
        self.pump()
        self.assertEqual(len(far.data), self.total)

    def test_download(self) -> None:
        """What a device does not read stays with the target; nothing is lost when it reads again."""
        near, far = self.forward()
        self.stall(far, near)
        near.transport.resumeProducing()
        self.pump()
        self.assertEqual(len(near.data), self.total)

    def test_others_go_on(self) -> None:
        """A forward that stands still is in nobody else's way."""
        near, far = self.forward()
        self.stall(far, near)
        other_near, other_far = self.forward()
        other_far.transport.write(b"hello")
        other_near.transport.write(b"there")
        self.pump()
        self.assertEqual((other_near.data, other_far.data), (b"hello", b"there"))

    def test_gone(self) -> None:
        """When the connection goes, what waits goes, and the source is told to stop."""
        near, far = self.forward()
        source = self.stall(far, near)
        self.pumps[-1].clientIO.loseConnection()
        self.pump()
        self.assertEqual(source.left, 0)
        far.lost.trap(ConnectionLost)
        near.lost.trap(ConnectionLost)

    def test_congested(self) -> None:
        """While the connection itself takes nothing, forwards wait; then each gets its turn."""
        pairs = [self.forward() for _ in range(3)]
        self.server_end.pauseProducing()
        sources = [Source(far.transport, 1 << 20) for _, far in pairs]
        self.pump()
        self.assertEqual([len(near.data) for near, _ in pairs], [0, 0, 0])
        self.assertTrue(all(source.paused for source in sources))
        order = []
        for number, (near, _) in enumerate(pairs):
            near.dataReceived = lambda data, number=number: order.append(number)
        self.server_end.resumeProducing()
        self.pump()
        self.assertEqual(order[:6], [0, 1, 2, 0, 1, 2])
        self.assertEqual([source.left for source in sources], [0, 0, 0])

    def test_pulled(self) -> None:
        """A source that gives one piece at a time is asked for the next one when there is room for it."""
        near, far = self.forward()
        near.transport.pauseProducing()
        done = FileSender().beginFileTransfer(BytesIO(b"x" * (5 << 20)), far.transport)
        self.pump()
        self.assertNoResult(done)
        self.assertLessEqual(far.transport.waiting_bytes, HIGH_WATER)
        near.transport.resumeProducing()
        self.pump()
        self.successResultOf(done)
        self.assertEqual(len(near.data), 5 << 20)

    def test_pulled_while_congested(self) -> None:
        """The same if the connection was busy when the source came."""
        near, far = self.forward()
        self.server_end.pauseProducing()
        done = FileSender().beginFileTransfer(BytesIO(b"x" * 100_000), far.transport)
        self.pump()
        self.assertNoResult(done)
        self.server_end.resumeProducing()
        self.pump()
        self.successResultOf(done)
        self.assertEqual(len(near.data), 100_000)

    def test_packet_size(self) -> None:
        """No piece is larger than the other end takes."""
        near, far = self.forward()
        sizes: list[int] = []
        near.dataReceived = lambda data: sizes.append(len(data))
        far.transport.write(bytes(3 * PACKET_SIZE + 1))
        self.pump()
        self.assertEqual(sizes, [PACKET_SIZE] * 3 + [1])


class SlowShellTests(FlowTestCase):
    """Shells with somebody who does not read, or types faster than the shell."""

    def test_output(self) -> None:
        """A device that asks without reading is not read either, until it takes the answers."""
        probe = Unread()
        self.client_end.channels.open(probe)
        self.pump()
        probe.request(b"shell", b"")
        for _ in range(100):
            probe.send(b"help\n" * 200)
        self.pump()
        (channel,) = self.server_end.service.channels.values()
        self.assertLessEqual(channel.waiting_bytes, HIGH_WATER + OUTPUT_LIMIT + LONGEST_ANSWER)
        self.assertGreater(probe.waiting_bytes, 0)
        self.assertEqual(probe.unread, probe.window_size)
        probe.read()
        self.pump()
        probe.send(b"exit\n")
        self.pump()
        self.assertEqual((probe.waiting_bytes, probe.prompts, probe.end), (0, 20_001, ""))

    def test_paused_listener(self) -> None:
        """A device may pause its shell's output; nothing is lost, the end comes last."""
        listener = Listener()
        shell: RemoteShell = self.result(self.link.open_shell(listener))
        self.assertTrue(verifyObject(IPushProducer, shell))
        self.assertEqual(listener.out, b"rpi1100$ ")
        shell.pauseProducing()
        shell.write(b"echo hello\nexit\n")
        self.pump()
        self.assertEqual((listener.out, listener.end), (b"rpi1100$ ", None))
        shell.resumeProducing()
        self.assertEqual((listener.out, listener.end), (b"rpi1100$ hello\nrpi1100$ ", (0, "")))


class HalfCloseTests(FlowTestCase):
    """One direction at a time."""

    def test_interfaces(self) -> None:
        """To its protocol, a forward is what TCP is."""
        near, far = self.forward()
        for end in (near, far):
            for interface in (ITransport, IConsumer, IPushProducer):
                self.assertTrue(verifyObject(interface, end.transport))

    def test_device_first(self) -> None:
        """A device that has said all can still hear the answer."""
        near, far = self.forward(Half)
        near.transport.write(b"question")
        near.transport.loseWriteConnection()
        self.pump()
        self.assertEqual((far.data, far.read_ended, far.lost, near.lost), (b"question", True, None, None))
        far.transport.write(b"answer")
        far.transport.loseConnection()
        self.pump()
        self.assertEqual(near.data, b"answer")
        far.lost.trap(ConnectionDone)
        near.lost.trap(ConnectionDone)
        self.assertEqual(self.server_end.service.channels, {})
        self.assertEqual(self.client_end.channels.channels, {})

    def test_server_first(self) -> None:
        """The same the other way round; when both have said all, the forward is over."""
        near, far = self.forward(Half)
        far.transport.loseWriteConnection()
        self.pump()
        self.assertEqual((near.read_ended, near.lost), (True, None))
        near.transport.write(b"last words")
        near.transport.loseWriteConnection()
        self.pump()
        self.assertEqual(far.data, b"last words")
        far.lost.trap(ConnectionDone)
        near.lost.trap(ConnectionDone)

    def test_simple_protocol(self) -> None:
        """A protocol that knows nothing of directions sees its connection end, after sending what it has written."""
        near, far = self.forward()
        near.transport.write(b"x")
        near.transport.loseWriteConnection()
        far.dataReceived = lambda data: far.transport.write(b"bye")
        self.pump()
        far.lost.trap(ConnectionDone)
        self.assertEqual(near.data, b"bye")

    def test_end_after_data(self) -> None:
        """The end does not overtake data that was held back."""
        for kind in (Recorder, Half):
            near, far = self.forward(kind)
            far.transport.pauseProducing()
            near.transport.write(b"x" * 100_000)
            near.transport.loseConnection()
            self.pump()
            self.assertEqual((far.data, far.lost), (b"", None))
            far.transport.resumeProducing()
            self.pump()
            self.assertEqual(len(far.data), 100_000)
            far.transport.loseConnection()
            self.pump()
            far.lost.trap(ConnectionDone)
            near.lost.trap(ConnectionDone)

    def test_abort(self) -> None:
        """An end that gives up does not wait for what it has written; the other one learns of it."""
        near, far = self.forward(Half)
        self.client_end.pauseProducing()
        near.transport.write(b"x" * 1_000_000)
        near.transport.abortConnection()
        self.client_end.resumeProducing()
        self.pump()
        self.assertEqual(far.data, b"")
        far.lost.trap(ConnectionDone)
        near.lost.trap(ConnectionDone)

    def test_late_words(self) -> None:
        """What arrives on a channel that this end has closed already is ignored, whatever it is."""
        near, far = self.forward(Half)
        far.transport.abortConnection()
        near.transport.write(b"too late")
        near.transport.loseWriteConnection()
        self.client_end.send(numbers.MSG_CHANNEL_WINDOW_ADJUST, uint32(near.transport.remote_id, 0))
        near.transport.request(b"anything", b"")
        self.pump()
        self.assertFalse(self.server_end.closing)
        self.assertEqual(far.data, b"")

    def test_stderr_is_not_for_forwards(self) -> None:
        """Extended data on a forward goes nowhere, and does not use up its window."""
        near, far = self.forward()
        for _ in range(100):
            near.transport.send(bytes(PACKET_SIZE), 1)
            self.pump()
        near.transport.write(b"plain")
        self.pump()
        self.assertEqual(far.data, b"plain")


class SwitchTests(FlowTestCase):
    """A listener that pauses and goes on inside what it is told."""

    def test_reentrant(self) -> None:
        """A protocol may pause and go on while it is given data; order is kept."""
        near, far = self.forward()
        got: list[bytes] = []

        def take(data: bytes) -> None:
            far.transport.pauseProducing()
            far.transport.resumeProducing()
            got.append(data)

        far.dataReceived = take
        for number in range(5):
            near.transport.write(b"%d" % number)
        self.pump()
        self.assertEqual(b"".join(got), b"01234")
