"""The unit files of C{contrib/systemd}, as systemd reads them: as much of systemd.syntax(7) as they use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.source import CHECKOUT

FOLDER = CHECKOUT / "contrib" / "systemd"

#: The settings of a section, each with its values in their order; an empty value would take back those before it.
Section = Mapping[str, Sequence[str]]


def units() -> list[str]:
    """Their names."""
    return sorted(path.name for path in FOLDER.glob("*.service"))


def sections(name: str) -> dict[str, dict[str, list[str]]]:
    """
    What stands in a unit file.

    @raise ValueError: a line is neither a section, nor a setting, nor a comment.
    """
    found: dict[str, dict[str, list[str]]] = {}
    current: dict[str, list[str]] | None = None
    for number, line in enumerate((FOLDER / name).read_text().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(("#", ";")):
            continue
        if text.startswith("[") and text.endswith("]"):
            current = found.setdefault(text[1:-1], {})
            continue
        key, equals, value = text.partition("=")
        if current is None or not equals or text.endswith("\\"):
            raise ValueError(f"{name}:{number}: {line}")
        values = current.setdefault(key.strip(), [])
        if not value.strip():
            values.clear()
        else:
            values.append(value.strip())
    return found


def service(name: str) -> dict[str, list[str]]:
    """The section C{[Service]} of a unit file."""
    return sections(name)["Service"]


def words(settings: Section, key: str) -> set[str]:
    """The words of a setting that is a list."""
    return {word for value in settings.get(key, ()) for word in value.split()}
