"""Reports of runs: a page of one run, and a page that lays several over each other. Each is one HTML file that needs
nothing beside it, neither scripts nor a network.
"""

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxslm.evaluation.html_page import save_page, table
from jaxslm.evaluation.run_figures import N_COLOURS, Curve, number, panel, stacked_bar
from jaxslm.evaluation.run_reading import HELDOUT, LOST, SAMPLES, SUITE, Run, is_number, read_run, read_runs
from jaxslm.evaluation.run_samples import MOST_BYTES, samples_section
from jaxslm.evaluation.run_tables import evaluation_tables, hardware_table, last_figures, numbers_in, times_table

MOST_PANELS = 40  # of other figures
# what has a section of its own, or says nothing as a curve
_ASIDE = re.compile(r"_per_s$|^mfu$|^goodput$|^seconds/|^tokens/|^suite/|^loss$|^loss/|^skipped_in_a_row$")
_BASE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6470; --paper: #fff; --line: #d9dde2; --card: #f5f6f8;
  --warn: #8a4b00; --c0: #0066b3; --c1: #c8500a; --c2: #00875a; --c3: #a8327d; --c4: #8a6d00; --c5: #0087a8;
  --c6: #6a4fc4; --c7: #6b6b6b }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa4b0; --paper: #14171a; --line: #343a41;
  --card: #1d2125; --warn: #f0b35c; --c0: #5cb3f5; --c1: #ff9257; --c2: #45cf9c; --c3: #ec82c4; --c4: #dcc04a;
  --c5: #4fd0ee; --c6: #ac98ff; --c7: #adadad } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 76rem; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.6rem; margin: .5rem 0; overflow-wrap: anywhere }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .5rem; border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere }
a { color: var(--c0) }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: 1rem 0; list-style: none }
nav a { display: inline-block; padding: .25rem 0 }
small, .soft { color: var(--soft) }
.missing { color: var(--warn) }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); gap: 1.5rem }
figure { margin: 0; min-width: 0; break-inside: avoid }
figcaption { font-size: .9rem; margin-bottom: .25rem; overflow-wrap: anywhere }
figure svg { display: block; width: 100%; height: auto; stroke-linejoin: round }
figure.many { grid-column: 1 / -1 } figure.bar { margin: 1rem 0 } figure.bar svg { height: 1.75rem; border-radius: 4px }
.key { display: inline-block; margin-right: .75em; color: var(--soft) }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em }
.wide { overflow-x: auto; margin: .75rem 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 600 } tbody th { font-weight: normal; color: var(--soft) }
.numbers td, .numbers thead th + th { text-align: right; white-space: nowrap }
.facts td { overflow-wrap: anywhere; min-width: 9rem }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .5rem 1rem; margin: 0 }
dt { color: var(--soft) } dd { margin: 0; min-width: 0 } dd p { margin: 0; overflow-wrap: anywhere }
dd svg { display: block; max-width: 100%; height: auto }
audio { display: block; width: 22rem; max-width: 100%; height: 2.5rem; margin: .25rem 0 }
summary { cursor: pointer; padding: .25rem 0 }
@media (max-width: 36rem) { dl { grid-template-columns: 1fr; gap: .1rem } dd { margin-bottom: .6rem } }
@media print { body { max-width: none } nav ul { display: block } details > * { display: block }
  audio { display: none } }
"""
Section = tuple[str, str]  # title, HTML


def report(folders: Sequence[Path], out: Path | None = None, *, most_bytes: int = MOST_BYTES) -> Path:
    """Writes the page of one run (by default its report.html), or the comparison of several (comparison.html of the
    first); where it lies.

    most_bytes: of sound on the page. Raises ValueError for a folder that is no workdir, OSError where nothing can be
    written.
    """
    folders = [folder.expanduser() for folder in folders]
    if len(folders) == 1:
        text, name = run_page(read_run(folders[0]), most_bytes), "report.html"
    else:
        text, name = comparison_page(read_runs(folders)), "comparison.html"
    out = (out or folders[0] / name).expanduser()
    if out.is_dir():
        raise ValueError(f"--out={out} is a folder; name a file, such as {out / name}")
    save_page(out, text)
    return out


def run_page(run: Run, most_bytes: int = MOST_BYTES) -> str:
    """The page of one run as HTML."""
    facts = _facts(run)
    sections = [
        ("Losses", _losses([run]) + last_figures(run)),
        ("Suites over time", _suites([run])),
        ("Evaluations", evaluation_tables(run.evaluations)),
        ("Samples", samples_section(run.folder / SAMPLES, most_bytes)),
        ("Throughput", _speeds([run])),
        ("Where the time went", _goodput(run)),
        ("Hardware", hardware_table(run)),
        ("Other figures", _others([run])),
        ("Config", _config(run)),
        ("What is missing", _missing([run])),
    ]
    return _page(run.name, table([], list(facts.items()), kind="facts"), sections)


def comparison_page(runs: Sequence[Run]) -> str:
    """The page of several runs as HTML: curves over each other, and tables of what differs."""
    facts = [_facts(run) for run in runs]
    names = dict.fromkeys(name for fact in facts for name in fact)
    overview = table(["", *(run.name for run in runs)], [[n, *(f.get(n, "-") for f in facts)] for n in names])
    sections = [
        ("Losses", _losses(runs)),
        ("Suites over time", _suites(runs)),
        ("Last figures", _last(runs)),
        ("Differences in config", _differences(runs)),
        ("Throughput", _speeds(runs)),
        ("Where the time went", "".join(_goodput(run, title=run.name) for run in runs)),
        ("Other figures", _others(runs)),
        ("What is missing", _missing(runs)),
    ]
    return _page(f"{len(runs)} runs compared", overview, sections)


def _page(title: str, head: str, sections: Sequence[Section]) -> str:
    ids = [re.sub(r"\W+", "-", name.lower()) for name, _ in sections]
    links = "".join(f'<li><a href="#{id}">{name}</a></li>' for id, (name, _) in zip(ids, sections, strict=True))
    body = "\n".join(
        f'<section aria-labelledby="{id}"><h2 id="{id}">{name}</h2>{content}</section>'
        for id, (name, content) in zip(ids, sections, strict=True)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}: jaxslm</title><style>{_BASE}</style></head>\n"
        f'<body><header><h1>{html.escape(title)}</h1>{head}</header><nav aria-label="Contents"><ul>{links}</ul></nav>\n'
        f"<main>{body}</main></body></html>\n"
    )


def _facts(run: Run) -> dict[str, str]:
    facts = {"folder": str(run.folder)}
    if task := run.config.get("task"):
        facts["task"] = str(task)
    planned = run.config.get("steps")
    facts["steps"] = f"{run.last_step:,}" + (f" of {planned:,}" if is_number(planned) else "")
    if losses := run.mean_losses():
        facts["training loss"] = f"{number(losses['loss'])} (mean of the last {run.log_every} steps)"
    if held := run.points(f"{HELDOUT}loss"):
        best, step = min((value, step) for step, value in held)
        facts["held-out loss"] = f"{number(held[-1][1])} (best {number(best)} at step {step:,})"
    if seconds := run.seconds():
        total = sum(seconds.values())
        facts["wall time"] = f"{_time(total)}, of which {100 * seconds['step'] / total:.0f} % in steps"
    if run.hardware:
        last = run.hardware[-1]
        facts["devices"] = f"{last.get('device_count', '?')} x {last.get('device_kind', '?')}"
    if command := run.provenance.get("command"):
        facts["command"] = str(command)
    if commit := run.provenance.get("commit"):
        facts["commit"] = str(commit)
    return facts


def _time(seconds: float) -> str:
    hours, minutes = int(seconds // 3600), int(seconds % 3600 // 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {int(seconds % 60)} s"


def _panels(panels: Sequence[str], otherwise: str) -> str:
    return f'<div class="panels">{"".join(panels)}</div>' if panels else f'<p class="missing">{otherwise}</p>'


def _over(runs: Sequence[Run], name: str, *, smooth: bool = True) -> str:
    """A figure of the runs, training and held-out, in one panel."""
    curves = [
        Curve(run.name if len(runs) > 1 else "", run.points(name), run.points(HELDOUT + name), colour=i)
        for i, run in enumerate(runs)
    ]
    return panel(name, [curve for curve in curves if curve.points or curve.heldout], smooth=smooth)


def _losses(runs: Sequence[Run]) -> str:
    names = dict.fromkeys(name for run in runs for name in run.losses)
    note = (
        '<p class="soft">Thin: each step. Thick: their running mean, over a fortieth of them. Dashed: held-out. The '
        "numbers are where the curves end. An axis is logarithmic where the end would else be flat.</p>"
    )
    return note + _panels([_over(runs, name) for name in names], "There are no losses yet.")


def _suites(runs: Sequence[Run]) -> str:
    panels, tables, notes = [], [], []
    for suite, kind in dict.fromkeys(key for run in runs for key in run.suites):
        _add_accuracies(panels, tables, runs, suite, kind)
    for run in runs:
        for name in run.names:
            suite, _, figure = name.removeprefix(SUITE).rpartition("/")
            if name.startswith(SUITE) and figure in LOST and (last := run.points(name)[-1][1]):
                notes.append(f"{run.name}: {last:g} {LOST[figure].format(suite=suite)} at the end.")
    said = "".join(f'<p class="missing">{html.escape(note)}</p>' for note in notes)
    head = '<p class="soft">Accuracies. The dotted line is chance.</p>' if panels or tables else ""
    return head + _panels([*panels, *tables], "No suites were measured in training (config.eval.suites).") + said


def _add_accuracies(panels: list[str], tables: list[str], runs: Sequence[Run], suite: str, kind: str) -> None:
    """A panel for each tag, its groups and "all" as curves; of several runs, for each group. Where there are more
    groups or runs than colours, a table of the last accuracies."""
    having = [run for run in runs if (suite, kind) in run.suites]
    chance, tags = having[0].chance(suite), _by_tag(group for run in having for group in run.suites[suite, kind])
    if len(runs) == 1 and len(tags) > 1:
        whole = tags.pop("", {})
        tags = {tag: whole | groups for tag, groups in tags.items()}
    for tag, groups in tags.items():
        title = f"{suite}, {kind}, by {tag}" if tag else f"{suite}, {kind}"
        points = {group: [run.suite_points(suite, kind, group) for run in runs] for group in groups}
        if max(len(groups), len(runs)) > N_COLOURS:
            rows = [[groups[g], *(number(p[-1][1]) if p else "-" for p in each)] for g, each in points.items()]
            head = ["", *(run.name for run in runs)] if len(runs) > 1 else []
            tables.append(_last_accuracies(title, head, rows, chance))
        elif len(runs) == 1:
            curves = [Curve(groups[g], each[0], colour=i) for i, (g, each) in enumerate(points.items())]
            panels.append(_suite(title, curves, chance))
        else:
            for group, each in points.items():
                curves = [Curve(run.name, each[i], colour=i) for i, run in enumerate(runs) if each[i]]
                panels.append(_suite(f"{suite}, {group}, {kind}", curves, chance))


def _suite(title: str, curves: Sequence[Curve], chance: float) -> str:
    return panel(title, curves, chance=chance, share=True, smooth=False)


def _by_tag(groups: Iterable[str]) -> dict[str, dict[str, str]]:
    """The groups of each tag, and what they are called beside each other: {"length": {"length=3": "3"}}; those of no
    tag, of which "all" is one, are under ""."""
    found: dict[str, dict[str, str]] = {}
    for group in groups:
        tag, tagged, value = group.partition("=")
        found.setdefault(tag if tagged else "", {})[group] = value or group
    return found


def _last_accuracies(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], chance: float) -> str:
    caption = f'<b>{html.escape(title)}</b> <span class="key">at the end; chance {number(chance)}</span>'
    wide = ' class="many"' if head else ""
    return f"<figure{wide}><figcaption>{caption}</figcaption>{table(head, rows, kind='numbers')}</figure>"


def _speeds(runs: Sequence[Run]) -> str:
    names = dict.fromkeys([*(name for run in runs for name in run.speeds), "goodput"])
    shown = [_over(runs, name, smooth=name != "goodput") for name in names if any(name in run.names for run in runs)]
    note = '<p class="soft">Without saves and evaluations; goodput is the share of steps in the time since a start.</p>'
    return note + _panels(shown, "There are no speeds yet: they come with the second step.")


def _goodput(run: Run, title: str = "Share of the wall time") -> str:
    seconds = run.seconds()
    if not seconds:
        return f'<p class="missing">{html.escape(title)}: no times yet (seconds/... in metrics.jsonl).</p>'
    return stacked_bar(title, seconds) + times_table(seconds)


def _others(runs: Sequence[Run]) -> str:
    """The rest of the figures, closed until asked for."""
    found = dict.fromkeys(name.removeprefix(HELDOUT) for run in runs for name in run.names)
    names = [name for name in found if not _ASIDE.search(name)]
    # what never was anything but zero needs no picture
    names = [n for n in names if any(v for run in runs for m in (n, HELDOUT + n) for _, v in run.points(m))]
    left_out = (
        f'<p class="missing">{len(names) - MOST_PANELS} more are left out.</p>' if len(names) > MOST_PANELS else ""
    )
    panels = _panels([_over(runs, name) for name in names[:MOST_PANELS]], "There are none.")
    return f"<details><summary>{min(len(names), MOST_PANELS)} figures</summary>{panels}{left_out}</details>"


def _config(run: Run) -> str:
    if not run.config:
        return '<p class="missing">There is no config.json that can be read.</p>'
    rows = [[name, _shown(value)] for name, value in sorted(run.config.items())]
    versions = run.provenance.get("versions")
    if isinstance(versions, Mapping):
        rows += [[f"version of {name}", str(version)] for name, version in versions.items()]
    return f"<details><summary>{len(run.config)} settings</summary>{table([], rows, kind='facts')}</details>"


def _differences(runs: Sequence[Run]) -> str:
    names = sorted({name for run in runs for name in run.config})
    values = {name: [_shown(run.config[name]) if name in run.config else "-" for run in runs] for name in names}
    rows = [[name, *cells] for name, cells in values.items() if len(set(cells)) > 1]
    if not rows:
        return f"<p>None: all {len(names)} settings are the same.</p>"
    note = f'<p class="soft">{len(names) - len(rows)} other settings are the same in all.</p>'
    return table(["setting", *(run.name for run in runs)], rows, kind="facts") + note


def _last(runs: Sequence[Run]) -> str:
    """The last figures of each run beside each other; training losses are means over its last log_every steps, and
    those of files are out of evaluations/."""
    columns: list[dict[str, str]] = []
    for run in runs:
        figures = {f"training {name}": value for name, value in run.mean_losses().items()}
        for name in run.names:
            if name.startswith(HELDOUT) or name in (*run.speeds, "goodput"):
                figures[name.replace(HELDOUT, "held-out ", 1)] = run.points(name)[-1][1]
        shown = {name: number(value) for name, value in figures.items()}
        for file, result in run.evaluations.items():
            shown |= {f"{file}: {' / '.join(path)}": text for path, text in numbers_in(result)}
        columns.append({"step": f"{run.last_step:,}"} | shown)
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name, "-") for column in columns)] for name in names]
    return table(["", *(run.name for run in runs)], rows, kind="numbers")


def _missing(runs: Sequence[Run]) -> str:
    notes = [f"{run.name}: {note}" if len(runs) > 1 else note for run in runs for note in run.missing]
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f'<ul class="missing">{items}</ul>' if items else "<p>Nothing.</p>"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
