"""What a misspelt name may have meant."""

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...?': by the whole name, else by its last part alone; '' if nothing is close."""
    known = list(known)
    ends = {key.rsplit(".", 1)[-1]: key for key in known}
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    match = match or [ends[e] for e in difflib.get_close_matches(name.rsplit(".", 1)[-1], list(ends), n=1)]
    return f" Did you mean {match[0]}?" if match else ""
