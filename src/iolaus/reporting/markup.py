"""The HTML of the report: its style, and the elements of which it is made, with all text in them escaped."""

import base64
import html
from collections.abc import Iterable, Iterator, Sequence

from iolaus.errors import printable

STYLE = """
:root { color-scheme: light dark; --line: #ccc; --soft: #f3f3f3; --warn: #a33c00; }
@media (prefers-color-scheme: dark) { :root { --line: #555; --soft: #2a2a2a; --warn: #ff9d66; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 0 auto; padding: 1rem; }
h1, h2 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.7rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { background: var(--soft); }
td { font-variant-numeric: tabular-nums; max-width: 24rem; overflow: hidden; text-overflow: ellipsis; }
pre, code { background: var(--soft); border-radius: 4px; }
pre { padding: 0.7rem; white-space: pre-wrap; overflow-wrap: anywhere; }
code { padding: 0.1rem 0.3rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: fit-content(50%) 1fr; gap: 0.2rem 1rem; }
dd { margin: 0; }
dt, dd { overflow-wrap: anywhere; }
.warn { color: var(--warn); }
figure { margin: 0; }
figcaption { margin-bottom: 0.5rem; }
img { display: block; width: 100%; min-width: 720px; height: auto; background: white; border-radius: 4px; }
"""


def text(value: object) -> str:
    """Return a value as HTML, in one line and escaped; a float has six significant digits."""
    return html.escape(printable(f"{value:.6g}" if isinstance(value, float) else str(value)))


def head(title: str) -> Iterator[str]:
    """Yield the beginning of a page, with its title as the first heading; `FOOT` ends it."""
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{text(title)}</title><style>{STYLE}</style></head><body><h1>{text(title)}</h1>"


FOOT = "</body></html>"


def command(line: str) -> str:
    """Return a shell command, whose line breaks are kept."""
    return f"<pre>{html.escape(line)}</pre>"


def items(lines: Iterable[str]) -> Iterator[str]:
    """Yield an unordered list."""
    yield "<ul>"
    yield from (f"<li>{text(line)}</li>" for line in lines)
    yield "</ul>"


def table(rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Yield a table of these rows, the first of which is its head."""
    yield f'<div class="scroll"><table><tr>{"".join(f"<th>{text(cell)}</th>" for cell in rows[0])}</tr>'
    yield from (f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>" for row in rows[1:])
    yield "</table></div>"


def picture(title: str, caption: str, png: bytes) -> Iterator[str]:
    """Yield a PNG image with its heading and its caption."""
    data = base64.b64encode(png).decode()
    yield f"<h2>{text(title)}</h2><figure><figcaption>{text(caption)}</figcaption>"
    yield f'<div class="scroll"><img alt="{text(title)}" src="data:image/png;base64,{data}"></div></figure>'
