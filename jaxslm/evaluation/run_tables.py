"""Tables of a run's report: last figures, hardware, times, and results of launch/evaluate.py."""

import html
from collections.abc import Iterator, Mapping
from typing import Any

from jaxslm.evaluation.html_page import table
from jaxslm.evaluation.run_figures import number
from jaxslm.evaluation.run_reading import HELDOUT, Run, is_number

_SAID = ("judge", "normalizer", "ceiling")  # that are said where there is none, too
MOST_ROWS = 200  # of a result's table
_HARDWARE = ("device_count", "device_kind", "platform", "process_count", "host", "system", "python", "jax", "jaxlib")


def last_figures(run: Run) -> str:
    """Losses at the end, training beside held-out, and the best held-out ones."""
    training, rows = run.mean_losses(), []
    for name in run.losses:
        held = run.points(HELDOUT + name)
        row = [name, number(training[name]) if name in training else "-", number(held[-1][1]) if held else "-"]
        best = min(((value, step) for step, value in held), default=None)
        rows.append([*row, f"{number(best[0])} at step {best[1]:,}" if best else "-"])
    head = ["", f"training, last {run.log_every} steps", "held-out", "best held-out"]
    return table(head, rows, kind="numbers") if rows else ""


def hardware_table(run: Run) -> str:
    """What each start ran on; starts on the same as the one before are counted with it."""
    groups: list[tuple[Mapping[str, Any], int]] = []
    for start in run.hardware:
        same = groups and all(groups[-1][0].get(name) == start.get(name) for name in _HARDWARE)
        groups[-1:] = [(groups[-1][0], groups[-1][1] + 1)] if same else [*groups[-1:], (start, 1)]
    if not groups:
        return '<p class="missing">Not noted: there is no hardware.json that can be read.</p>'
    rows = []
    for start, count in groups:
        started = f"{start.get('started', '?')}" + (f" and {count - 1} more" if count > 1 else "")
        rows.append([str(start.get("step", "?")), started, *(str(start.get(name, "?")) for name in _HARDWARE)])
    return table(["from step", "started", *(name.replace("_", " ") for name in _HARDWARE)], rows)


def times_table(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values())
    rows = [[kind, f"{value:,.1f}", f"{100 * value / total:.1f} %"] for kind, value in seconds.items()]
    return table(["", "seconds", "share"], [*rows, ["all", f"{total:,.1f}", "100 %"]], kind="numbers")


def evaluation_tables(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Each result with its numbers: rows are what they are of, columns what is above that."""
    if not evaluations:
        return "<p>None lie in evaluations/ (launch/evaluate.py --out=RUN/evaluations).</p>"
    return "".join(_evaluation(file, result) for file, result in evaluations.items())


def _evaluation(file: str, result: Mapping[str, Any]) -> str:
    facts = [[" / ".join(path), text] for path, text in _words_in(result) if path != ("suite",)]
    parts = [f"<h3>{html.escape(result['suite'])} <small>{html.escape(file)}</small></h3>"]
    cells = {path: text for path, text in numbers_in({k: v for k, v in result.items() if k != "suite"})}
    columns = list(dict.fromkeys(path[:-1] for path in cells))
    names = list(dict.fromkeys(path[-1] for path in cells if len(path) > 1))
    facts += [[path[0], text] for path, text in cells.items() if len(path) == 1]
    if names:
        columns = [column for column in columns if column]
        head = ["", *(" / ".join(column) for column in columns)]
        rows = [[name, *(cells.get((*column, name), "") for column in columns)] for name in names[:MOST_ROWS]]
        parts.append(table(head, rows, kind="numbers"))
    if len(names) > MOST_ROWS:
        parts.append(f'<p class="missing">{len(names) - MOST_ROWS} more rows are in the file.</p>')
    return "".join([*parts, table([], facts, kind="facts") if facts else ""])


def _words_in(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, text) of what is said in words in nested dicts: judges, normalizers, ceilings, protocols."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _words_in(each, (*path, str(name)))
    elif isinstance(value, str):
        yield path, value
    elif value and isinstance(value, list) and all(isinstance(each, str) for each in value):
        yield path, ", ".join(value)
    elif not value and path[-1] in _SAID:
        yield path, "none"


def numbers_in(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, text) of the numbers in nested dicts; of a dict with a "value" only that, and of how many items."""
    if isinstance(value, Mapping):
        if path and is_number(value.get("value")):
            items = f" ({value['items']:,})" if is_number(value.get("items")) else ""
            yield path, number(value["value"]) + items
        elif path and "value" in value:
            yield path, "none"
        else:
            for name, each in value.items():
                yield from numbers_in(each, (*path, str(name)))
    elif is_number(value):
        yield path, number(value) if isinstance(value, float) else f"{value:,}"
