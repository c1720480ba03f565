"""Configs from the command line: `--config=FILE.py[:ARG]` and `--config.KEY=VALUE`; mistakes named with the cure."""

import ast
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxslm.spelling import closest


class ConfigError(ValueError):
    """A config that cannot be used as given."""


def from_arguments(arguments: Sequence[str]) -> tuple[ConfigDict | None, list[str]]:
    """(locked config, the other arguments) of a command line; the config is None if there is no `--config`.

    `--config.key value` works as `--config.key=value` does. Raises ConfigError.
    """
    source, overrides, others = None, [], []
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        name = "--" + name.lstrip("-")
        if not argument.startswith("-") or not (name == "--config" or name.startswith("--config.")):
            others.append(argument)
            continue
        if not equals and (value := next(waiting, None)) is None:
            raise ConfigError(f"{argument} needs a value: {argument}=VALUE.")
        if name == "--config":
            source = value
        else:
            overrides.append((name.removeprefix("--config."), value))
    if source is None:
        if overrides:
            raise ConfigError("--config.KEY=VALUE needs --config=FILE.py too.")
        return None, others
    return load_config(source, overrides), others


def load_config(source: str, overrides: Sequence[tuple[str, str]] = ()) -> ConfigDict:
    """`get_config(ARG)` of `FILE.py[:ARG]` with (dotted key, text) overrides, locked. Raises ConfigError."""
    name, _, argument = source.partition(":")
    path = Path(name)
    if not path.is_file():
        known = [str(p) for p in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        raise ConfigError(f"--config: there is no file {name}.{closest(name, known) or _listed(known)}")
    spec = importlib.util.spec_from_file_location(f"jaxslm_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    beside = str(path.resolve().parent.parent)  # a recipe imports its neighbours: `from configs import common`
    sys.path.insert(0, beside)
    try:
        spec.loader.exec_module(module)
        config = ConfigDict(module.get_config(argument))
    except ValueError as error:
        raise ConfigError(f"--config={source}: {error}") from error
    finally:
        sys.path.remove(beside)
    free = NAMED | {key for key, value in _leaves(config) if isinstance(value, ConfigDict) and not value}
    for key, text in overrides:
        _override(config, key, text, free)
    return config.lock()


def read_config(workdir: Path) -> ConfigDict:
    """The config a run was last started with, from its config.json, locked. Raises ConfigError if there is none."""
    path = workdir / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"{workdir} is not the workdir of a run: it has no config.json. Train first, or name another."
        )
    return ConfigDict(json.loads(path.read_text())).lock()


NAMED = {"data.sources", "eval.suites"}  # dicts whose names a user chooses


def _override(config: ConfigDict, key: str, text: str, free: Set[str]) -> None:
    """Sets one value; a new key only in the dicts `free`: NAMED, and those that are empty by default (such as
    mesh.rules)."""
    known = dict(_leaves(config))
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node[parent] if isinstance(node, ConfigDict) and parent in node else None
    if not isinstance(node, ConfigDict) or (last not in node and ".".join(parents) not in free):
        raise ConfigError(f"--config.{key}: there is no such key.{closest(key, list(known)) or _listed(sorted(known))}")
    value = _parsed(text, node.get(last), key)
    with node.unlocked(), node.ignore_type():  # already checked; a plain dict may take the place of a ConfigDict
        node[last] = ConfigDict(value) if isinstance(value, dict) else value


def _parsed(text: str, old: Any, key: str) -> Any:
    """`text` as the type of the value it replaces; a value of None takes any literal."""
    kind = type(old)
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        if isinstance(old, bool):
            return words[text.lower()]
        if isinstance(old, str):
            return text
        if isinstance(old, int):
            return int(float(text)) if float(text).is_integer() and "e" in text.lower() else int(text)
        if isinstance(old, float):
            return float(text)
        value = _literal(text)
        if isinstance(old, tuple | list):
            return kind(value if isinstance(value, tuple | list) else (value,))
        if isinstance(old, ConfigDict) and not isinstance(value, dict):
            raise ValueError
        return value
    except (ValueError, KeyError, OverflowError):
        expected = "dict" if isinstance(old, ConfigDict) else kind.__name__
        given = type(_literal(text)).__name__
        raise ConfigError(
            f"--config.{key}={text}: expected a value of type {expected}, got {given} (it is {old!r})."
        ) from None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{name}.")
        yield f"{prefix}{name}", value


def _listed(known: Sequence[str]) -> str:
    return f" Known: {', '.join(known)}." if known else ""
