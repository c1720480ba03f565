"""What pages that need nothing beside them are made of."""

import base64
import html
import os
from collections.abc import Sequence
from pathlib import Path


def data_uri(kind: str, data: bytes) -> str:
    """The address of a file that lies in the page itself; `kind` such as "audio/flac"."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    """A table of texts, which are escaped: the first of each row names it. `kind` is its class; it scrolls sideways."""
    top = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in head)
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    lines = []
    for name, *cells in rows:
        values = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr><th scope=row>{html.escape(name)}</th>{values}</tr>")
    # with a tab stop, or a keyboard could not scroll it
    return f'<div class="wide" tabindex=0><table class="{kind}">{top}<tbody>{"".join(lines)}</tbody></table></div>'


def save_page(path: Path, text: str) -> None:
    """Writes a page; an older one of that name stays until the new one is whole."""
    new = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    new.write_text(text, encoding="utf-8", errors="replace")
    os.replace(new, path)
