"""Tables and lists for people at a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Between two columns.
_GAP = "  "


def shown(value: object) -> str:
    """A value in printable characters only: what a device said of itself must not steer the terminal."""
    text = "-" if value is None or value == "" else str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A header and rows, in aligned columns; what is not there is a dash."""
    lines = [tuple(header), *(tuple(shown(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def listing(facts: Mapping[str, object], indent: str = "") -> str:
    """Facts by name, one a line, values aligned; a mapping among them is a list of its own, set in."""
    width = max((len(name) for name, value in facts.items() if not isinstance(value, Mapping)), default=0) + 1
    lines = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{shown(name)}:", listing(value, indent + _GAP)]
        elif isinstance(value, (list, tuple)):
            lines.append(f"{indent}{shown(name) + ':':{width}} {', '.join(map(shown, value)) or '-'}")
        else:
            lines.append(f"{indent}{shown(name) + ':':{width}} {shown(value)}")
    return "\n".join(lines)
