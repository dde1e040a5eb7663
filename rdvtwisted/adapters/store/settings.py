"""The server's settings, from the file on disk and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import evolve

from rdvtwisted.config import SYSTEM_CONFIG_FILE, ServerSettings, load, placed
from rdvtwisted.errors import ConfigError

#: Bytes of a settings file; the sample has about 3,000.
LARGEST_FILE = 1 << 20


def read_settings(
    file: str | None,
    environment: Mapping[str, str],
    overrides: Mapping[str, str],
    *,
    root: bool,
    system_file: str = SYSTEM_CONFIG_FILE,
) -> ServerSettings:
    """
    The settings of the server on this machine, with its state directory and control socket as absolute paths.

    @param file: the settings file; C{None} for C{system_file}, which may be missing.
    @param overrides: what options say, by C{section.key}.
    @param root: whether the server is root's.
    @raise ConfigError: the file cannot be read, a name is unknown, or a value cannot be used.
    """
    if file is None and not os.path.exists(system_file):
        text, path = "", ""
    else:
        path = file or system_file
        text = _read(path)
    try:
        settings = placed(load(text, environment, overrides), environment, root)
    except ConfigError as error:
        if not path:
            raise
        raise ConfigError(error.key, f"{error.problem} (settings file: {path})") from None
    return evolve(
        settings,
        state_directory=os.path.abspath(settings.state_directory),
        control=evolve(settings.control, socket=os.path.abspath(settings.control.socket)),
    )


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError("file", f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    if len(data) > LARGEST_FILE:
        raise ConfigError("file", f"{path} is larger than {LARGEST_FILE} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("file", f"{path} is not UTF-8 text") from None
