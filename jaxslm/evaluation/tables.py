"""Tables of figures as text."""

from collections.abc import Mapping, Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def mean_cell(metric: Mapping) -> str:
    """The mean of what `summarize` gives of a metric, and how many clips have none, in brackets."""
    failed = f" ({len(metric['failed'])} failed)" if metric["failed"] else ""
    return ("none" if metric["mean"] is None else f"{metric['mean']:.3f}") + failed
