"""Measures one thing against a peer: python launch/bench.py NAME [options]

Prints a table and, as its last line, one JSON object with `bench`, `ours` and `peer` (speeds in `unit`), `ratio` (ours
over peer), `peak_memory_mib`, `shapes`, `versions` and `details`. NAME is a module of jaxslm/benchmarks; `--help`
behind it lists its options.
"""

import importlib
import json
import pkgutil
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from jaxslm import benchmarks

PACKAGES = ("jax", "flax", "grain", "numpy")


def modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]


def load(name: str) -> Callable[[list[str]], dict] | None:
    """`run(argv) -> dict` of that module, if it has one. No other is imported: what they need may not be installed."""
    return getattr(importlib.import_module(f"jaxslm.benchmarks.{name}"), "run", None)


def can_run(name: str) -> bool:
    """Whether it is a benchmark, and what it imports is installed."""
    try:
        return load(name) is not None
    except ImportError:
        return False


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    run = load(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] in modules() else None
    if run is None:
        sys.exit(
            f"usage: python launch/bench.py NAME [options]; NAME is one of {', '.join(filter(can_run, modules()))}"
        )
    result = run(sys.argv[2:])
    versions = {name: installed(name) for name in PACKAGES} | {"python": platform.python_version()}
    result["versions"] = versions | result["versions"]
    rows = {key: value for key, value in result.items() if key != "details"} | result["details"]
    width = max(map(len, rows))
    for key, value in rows.items():
        print(f"{key:<{width}}  {value if not isinstance(value, float) else format(value, ',.4g')}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
