"""A person's own defaults: a file and the environment, read by the command line and the server only.

Settings never reach into a request behind its back: they are merged into the values a request is made from.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from imagesmith.core.errors import BadInput, did_you_mean
from imagesmith.core.requests import EngineName, Precision, Provider, validation_sentence
from imagesmith.core.specs import Record

PREFIX = "IMAGESMITH_"


class Settings(Record):
    """Defaults a person sets once for all commands; unset fields leave the request's own default."""

    engine: EngineName | None = None
    device: str | None = None
    provider: Provider | None = None
    precision: Precision | None = None
    threads: int | None = Field(default=None, ge=1)
    max_megapixels: float | None = Field(default=None, gt=0)
    """Largest photograph that is decoded."""


def default_path(environ: Mapping[str, str]) -> Path:
    """Return where the settings file lies: IMAGESMITH_CONFIG, else the platform's folder for settings."""
    if path := environ.get(f"{PREFIX}CONFIG"):
        return Path(path)
    if sys.platform == "win32" and (roaming := environ.get("APPDATA")):
        return Path(roaming) / "imagesmith" / "config.toml"
    base = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "imagesmith" / "config.toml"


def read_settings(environ: Mapping[str, str] | None = None, path: Path | None = None) -> Settings:
    """Read the settings file, then let IMAGESMITH_* variables override it.

    Raises:
        BadInput: the file is no TOML, or a setting is unknown or out of range; the sentence names where it stands.
    """
    environ = os.environ if environ is None else environ
    path = path or default_path(environ)
    values: dict[str, object] = _read_toml(path) if path.is_file() else {}
    for name in Settings.model_fields:
        if text := environ.get(PREFIX + name.upper()):
            values[name] = text
    unknown = [name for name in values if name not in Settings.model_fields]
    if unknown:
        near = did_you_mean(unknown[0], Settings.model_fields)
        known = ", ".join(Settings.model_fields)
        raise BadInput(f'{path}: there is no setting "{unknown[0]}".{near} The settings are: {known}.')
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"Settings ({path} or {PREFIX}* variables): {validation_sentence(error)}") from None


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path} is no readable settings file (TOML): {error}.") from None
