"""
The blind relay against a loop that copies: throughput, CPU and round trip.

Each figure is taken over loopback TCP with the sender, the relay and the
receiver in processes of their own. The relays take turns, and what counts
is the ratio of their medians: the absolute figures are those of this
machine and of whoever else uses it.

The rival is the plainest copy there is, one blocking thread that receives
into one buffer and sends from it, with no other connection to look after; the relay
runs in its reactor, as on the server.
"""

from __future__ import annotations

import argparse
import json
import resource
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from attrs import asdict, astuple, frozen
from twisted.internet.protocol import Factory

from rdvtwisted.adapters.front.relay import Relay
from rdvtwisted.adapters.front.stream import TunnelStream

#: Bytes of the buffers of sender, receiver and rival.
BUFFER = 256 * 1024
#: Bytes of a small message, about an encrypted keystroke.
MESSAGE = 128
#: Round trips in one measurement.
ROUND_TRIPS = 3000

RELAYS = ("splice", "copy")


@frozen
class Figures:
    """What one relay did: medians over the rounds."""

    #: Megabytes a second, one way.
    throughput: float
    #: CPU seconds of the relay's process for a gigabyte.
    cpu: float
    #: Microseconds for a small message and its answer, both through the relay.
    round_trip: float
    #: CPU microseconds of the relay's process for such a round trip.
    round_trip_cpu: float


def _same(stream: TunnelStream) -> TunnelStream:
    return stream


def splice(first: socket.socket, second: socket.socket) -> None:
    """Our relay, in its reactor."""
    from twisted.internet import reactor

    streams = []
    for connection in (first, second):
        stream = TunnelStream("")
        factory = Factory.forProtocol(partial(_same, stream))
        factory.noisy = False
        with connection:
            connection.setblocking(False)
            reactor.adoptStreamConnection(connection.fileno(), connection.family, factory)  # type: ignore[attr-defined]
        streams.append(stream)
    join = Relay(reactor).join(*streams)
    # The streams are closed one turn after the join has ended.
    join.ended.addCallback(lambda _: reactor.callLater(0.1, reactor.stop))
    reactor.run()


def copy(first: socket.socket, second: socket.socket) -> None:
    """One thread for both ways when they take turns, as they do here."""
    for connection in (first, second):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(BUFFER))
    while True:
        for source, target in ((first, second), (second, first)):
            if source in select.select([first, second], [], [])[0]:
                count = source.recv_into(buffer)
                if not count:
                    return
                target.sendall(buffer[:count])


def send(connection: socket.socket, count: int) -> None:
    """Send so many bytes."""
    data = bytes(BUFFER)
    for _ in range(count // BUFFER):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def echo(connection: socket.socket, _: int) -> None:
    """Send back what comes."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(MESSAGE):
        connection.sendall(data)


def relay(name: str, first: int, second: int) -> None:
    """Be a relay, and print the CPU seconds that moving bytes took."""
    sockets = socket.socket(fileno=first), socket.socket(fileno=second)
    (splice if name == "splice" else copy)(*sockets)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    sys.stdout.write(f"{usage.ru_utime + usage.ru_stime}\n")


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


def _start(*arguments: str, sockets: tuple[socket.socket, ...]) -> subprocess.Popen[str]:
    """Start this module in one of its parts, and give it sockets."""
    command = [sys.executable, "-m", "benchmarks.relay", "--part", *arguments]
    process = subprocess.Popen(
        [*command, *(str(each.fileno()) for each in sockets)],
        pass_fds=[each.fileno() for each in sockets],
        stdout=subprocess.PIPE,
        text=True,
    )
    for each in sockets:
        each.close()
    return process


def _through(name: str, part: str, count: int, measure: Callable[[socket.socket], float]) -> tuple[float, float]:
    """What C{measure} found at the near end, and the CPU seconds of the relay between it and C{part}."""
    near, first = _pair()
    second, far = _pair()
    relaying = _start("relay", name, sockets=(first, second))
    other = _start(part, str(count), sockets=(far,))
    with near:
        found = measure(near)
        near.shutdown(socket.SHUT_RDWR)
    other.wait()
    said, _ = relaying.communicate()
    return found, float(said)


def _receive(connection: socket.socket) -> float:
    """Seconds from the first byte to the end."""
    buffer = bytearray(BUFFER)
    connection.recv_into(buffer)
    start = time.perf_counter()
    while connection.recv_into(buffer):
        pass
    return time.perf_counter() - start


def _ping(connection: socket.socket) -> float:
    """Median seconds of a round trip."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    message, times = bytes(MESSAGE), []
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        connection.sendall(message)
        connection.recv(MESSAGE, socket.MSG_WAITALL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _idle(connection: socket.socket) -> float:
    """Nothing: what starting and stopping costs."""
    connection.sendall(b"x")
    connection.recv(1)
    return 0.0


def measure(count: int, rounds: int) -> dict[str, Figures]:
    """Let the relays take turns, and give the median of each."""
    found: dict[str, list[Figures]] = {name: [] for name in RELAYS}
    for _ in range(rounds):
        for name in RELAYS:
            _, base = _through(name, "echo", 0, _idle)
            seconds, cpu = _through(name, "send", count, _receive)
            trip, trip_cpu = _through(name, "echo", 0, _ping)
            figures = Figures(
                throughput=count / seconds / 1e6,
                cpu=(cpu - base) / count * 1e9,
                round_trip=trip * 1e6,
                round_trip_cpu=(trip_cpu - base) / ROUND_TRIPS * 1e6,
            )
            found[name].append(figures)
    return {name: _median(figures) for name, figures in found.items()}


def _median(figures: list[Figures]) -> Figures:
    columns = zip(*(astuple(each) for each in figures), strict=True)
    return Figures(*map(statistics.median, columns))


def report(found: dict[str, Figures]) -> str:
    """The figures as a table, and the ratios."""
    ours, theirs = found["splice"], found["copy"]
    lines = [f"{'':<8}{'MB/s':>10}{'CPU s/GB':>10}{'trip us':>10}{'CPU us':>10}"]
    for name, each in found.items():
        lines.append(
            f"{name:<8}{each.throughput:>10.0f}{each.cpu:>10.3f}{each.round_trip:>10.0f}{each.round_trip_cpu:>10.1f}"
        )
    lines.append(
        f"{'ratio':<8}{ours.throughput / theirs.throughput:>10.2f}{ours.cpu / theirs.cpu:>10.2f}"
        f"{ours.round_trip / theirs.round_trip:>10.2f}{ours.round_trip_cpu / theirs.round_trip_cpu:>10.2f}"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--megabytes", type=int, default=2048, help="megabytes in one measurement [default: 2048]")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each relay [default: 3]")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part, *rest = options.part
        if part == "relay":
            relay(rest[0], int(rest[1]), int(rest[2]))
        else:
            {"send": send, "echo": echo}[part](socket.socket(fileno=int(rest[1])), int(rest[0]))
        return
    found = measure(options.megabytes * 1_000_000 // BUFFER * BUFFER, options.rounds)
    print(json.dumps({name: asdict(each) for name, each in found.items()}) if options.json else report(found))


if __name__ == "__main__":
    main()
