"""
Functions of a whole number that change at a few places only, and the algebra of them.

One is written as segments: C{(first, last, value)}, in rising order, disjoint,
with different values where two meet; where there is none its value is nothing.
So two that are equal everywhere are equal as tuples.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Generic, TypeVar

V = TypeVar("V")

#: The segments of one function.
Segments = tuple[tuple[int, int, V], ...]


def overlay(one: Segments[V], other: Segments[V], join: Callable[[V, V], V], nothing: V) -> Segments[V]:
    """
    The function whose value is everywhere C{join} of the values of two.

    @param nothing: the value where there is no segment; C{join} of two of them must be nothing, too. Nothing is
        false, all else is true.
    """
    edges = sorted({edge for first, last, _ in (*one, *other) for edge in (first, last + 1)})
    found: list[tuple[int, int, V]] = []
    left, right = _Reader(one, nothing), _Reader(other, nothing)
    for first, after in pairwise(edges):
        value = join(left.at(first), right.at(first))
        if not value:
            continue
        if found and found[-1][1] == first - 1 and found[-1][2] == value:
            found[-1] = (found[-1][0], after - 1, value)
        else:
            found.append((first, after - 1, value))
    return tuple(found)


class _Reader(Generic[V]):
    """Reads a function at rising places."""

    def __init__(self, segments: Segments[V], nothing: V) -> None:
        self._segments = segments
        self._nothing = nothing
        self._next = 0

    def at(self, place: int) -> V:
        while self._next < len(self._segments) and self._segments[self._next][1] < place:
            self._next += 1
        if self._next < len(self._segments) and self._segments[self._next][0] <= place:
            return self._segments[self._next][2]
        return self._nothing
