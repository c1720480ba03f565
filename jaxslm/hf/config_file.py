"""config.json of Hugging Face folders, which may hold anything: what is read is of the kind that it should be."""

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_SIZE = 1 << 16  # of anything that config.json counts
MAX_CONVS = 64


def read_json(path: Path) -> dict[str, Any]:
    """Raises ValueError naming the file where it is no JSON object or not there."""
    try:
        read = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} has no {path.name}; name a folder with a model") from error
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is no JSON object ({error}): copy it again") from error
    if not isinstance(read, dict):
        raise ValueError(f"{path} is no JSON object but a {type(read).__name__}: copy it again")
    return read


def read_value(theirs: Mapping[str, Any], key: str, default: Any, where: str) -> Any:
    """What config.json has under the key, which is to be of the kind of the default and of a size that a model has."""
    value = theirs.get(key, default)
    if isinstance(default, bool):
        good, kind = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        good, kind = _is_size(value), f"a whole number from 1 to {MAX_SIZE}"
    elif isinstance(default, float):
        good, kind = type(value) in (int, float) and 0 < value < 1, "a number between 0 and 1"
    elif isinstance(default, str):
        good, kind = isinstance(value, str), "a string"
    elif default is None:
        good, kind = value is None or value == 0 or _is_size(value), f"null or a whole number up to {MAX_SIZE}"
    else:
        good = isinstance(value, (list, tuple)) and 0 < len(value) <= MAX_CONVS and all(map(_is_size, value))
        kind = f"a list of up to {MAX_CONVS} whole numbers from 1 to {MAX_SIZE}"
    if not good:
        raise ValueError(
            f"{where}: {key}={reprlib.repr(value)} is not {kind}; copy the file from the model's page again"
        )
    return value


def _is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_SIZE


def read_number(theirs: Mapping[str, Any], key: str, default: float, where: str, most: float) -> float:
    """A number from 0 to `most`. Raises ValueError naming the file and the field."""
    value = theirs.get(key, default)
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise ValueError(
            f"{where}: {key}={reprlib.repr(value)} is not a number from 0 to {most:g}; copy the file from the model's "
            "page again"
        )
    return float(value)


def check_small(counts: Mapping[str, int], most: int, where: str) -> None:
    """Raises ValueError naming a field that counts more than `most`: such a model would take for ever to build."""
    for key, count in counts.items():
        if count > most:
            raise ValueError(
                f"{where}: {key} counts {count}, more than {most}; copy the file from the model's page again"
            )


def check_neutral(theirs: Mapping[str, Any], neutral: Mapping[str, tuple], where: str) -> None:
    """Raises ValueError naming a field that changes the computation in a way that is not known here.

    neutral: the values of each field that leave it alone; a field that is not there does so, too.
    """
    for key, values in neutral.items():
        if key in theirs and theirs[key] not in values:
            raise ValueError(f"{where}: {key}={reprlib.repr(theirs[key])} is not supported; use a model without it")
