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
from importlib.metadata import version

from jaxslm import benchmarks

PACKAGES = ("jax", "flax", "grain", "numpy")


def names() -> list[str]:
    """Modules that have a `run(argv) -> dict`."""
    found = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    return [name for name in found if hasattr(importlib.import_module(f"jaxslm.benchmarks.{name}"), "run")]


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in names():
        sys.exit(f"usage: python launch/bench.py NAME [options]; NAME is one of {', '.join(names())}")
    result = importlib.import_module(f"jaxslm.benchmarks.{sys.argv[1]}").run(sys.argv[2:])
    versions = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
    result["versions"] = versions | result["versions"]
    rows = {key: value for key, value in result.items() if key != "details"} | result["details"]
    width = max(map(len, rows))
    for key, value in rows.items():
        print(f"{key:<{width}}  {value if not isinstance(value, float) else format(value, ',.4g')}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
