"""Published likelihood suites in their published layouts: one module each, `read(folder, report, **options)`.

A reader yields `Choice`s. What is wrong with a file is left out, named in the report with its cure, and counted; a
folder that is no such suite is a ValueError.
"""

from collections.abc import Mapping
from functools import partial
from itertools import islice

from jaxslm.data.report import Report
from jaxslm.evaluation.choices import Choice
from jaxslm.evaluation.suites import jsonl, salmon, storycloze, zerospeech
from jaxslm.spelling import closest

COMMON = ("kind", "path", "limit")  # keys of every spec

# kind -> (reader, the other keys of its spec)
SUITES = {
    "swuggy": (partial(zerospeech.read, kind="lexical"), ("split",)),
    "sblimp": (partial(zerospeech.read, kind="syntactic"), ("split",)),
    "storycloze": (storycloze.read, ("modes",)),
    "salmon": (salmon.read, ("parts",)),
    "jsonl": (jsonl.read, ()),
}


def read_suite(spec: Mapping, report: Report) -> list[Choice]:
    """The choices of one suite: `spec["kind"]` of SUITES, its `path`, how many of the first at most by `limit` (None:
    all), and the reader's own keys. ValueError for a key that is not known, and where no choice is left."""
    kind = spec.get("kind")
    if kind not in SUITES:
        raise ValueError(f"unknown kind of suite {kind!r}: use one of {', '.join(SUITES)}.{closest(str(kind), SUITES)}")
    reader, own = SUITES[kind]
    known = (*COMMON, *own)
    for key in spec:
        if key not in known:
            raise ValueError(
                f"a suite of kind {kind!r} has no {key!r}: it has {', '.join(known)}.{closest(key, known)}"
            )
    path, limit = spec.get("path"), spec.get("limit")
    if not path:
        raise ValueError(f"a suite of kind {kind!r} needs a path")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError(f"limit={limit!r} of suite {kind!r} must be a whole number from 1 up, or None for all")
    options = {key: spec[key] for key in own if key in spec}
    choices = list(islice(reader(path, report, **options), limit))
    if not choices:
        raise ValueError(f"{path}: no choice of suite {kind!r} can be used; {report.summary()}")
    return choices
