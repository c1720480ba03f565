"""Units as a picture."""

from collections.abc import Iterable

_WIDTH, _HEIGHT = 8, 16


def unit_strip(units: Iterable[int], columns: int = 100) -> str:
    """HTML of units as a strip of colours, one hue a unit, so that repeats and rhythm can be seen; `columns` a row."""
    units = [int(unit) for unit in units]
    boxes = "".join(
        f'<rect x="{i % columns * _WIDTH}" y="{i // columns * _HEIGHT}" width="{_WIDTH}" height="{_HEIGHT - 2}" '
        f'fill="hsl({unit * 137.5 % 360:.0f} 60% {45 + unit % 3 * 12}%)"><title>[Hu{unit}]</title></rect>'
        for i, unit in enumerate(units)
    )
    rows = -(-len(units) // columns)
    width, height = min(len(units), columns) * _WIDTH, rows * _HEIGHT
    shape = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f"<svg {shape}>{boxes}</svg><small>{len(units)} units</small>"
