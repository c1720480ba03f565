"""Files in which evaluations leave what they measured."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxslm.training.workdir import write_json


def write_result(out: Path, name: str, whole: Mapping[str, Any], rows: Iterable[Mapping[str, Any]] = ()) -> None:
    """OUT/<name>.jsonl, a line for each of `rows` if there are any, and then OUT/<name>.json: where it is, an
    evaluation is done. A float that is not finite is null in both."""
    out.mkdir(parents=True, exist_ok=True)
    if lines := [json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows]:
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    write_json(out / f"{name}.json", _plain(whole))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
