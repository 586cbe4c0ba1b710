"""Pages: a list of blocks becomes one self-contained HTML page or Markdown with pictures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --line: #d5d5d5; --muted: #5c5c5c; --card: #fff;
  --ours: #fff4d6; }
@media (prefers-color-scheme: dark) {
  :root { --line: #444; --muted: #a8a8a8; --ours: #4a3c12; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin-top: 2rem; overflow-wrap: anywhere; }
.muted { color: var(--muted); } .scroll { overflow-x: auto; }
.note { border-left: .25rem solid #E69F00; padding: .1rem 1rem; }
img.timeline { width: 100%; background: var(--card); border: 1px solid var(--line); }
figure { margin: 1rem 0; } figcaption, caption { color: var(--muted); text-align: left; }
figure img { max-width: 100%; background: #fff; }
.tables { display: flex; flex-wrap: wrap; gap: 0 2.5rem; margin: 1rem 0; }
.tables > * { max-width: 100%; }
table { border-collapse: collapse; margin-bottom: .5rem; } tr.ours { background: var(--ours); }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td img { width: 112px; height: 112px; display: block; border-radius: 4px; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .45em;
  border: 1px solid #777; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text; a note is one that must not be missed."""

    text: str
    note: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of plain text under headings."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    ours: frozenset[int] = frozenset()
    """Rows that are measured here, among others that are not."""
    text_columns: int = 1
    """This many columns from the left hold words; the others hold numbers."""


@dataclass(frozen=True)
class Picture:
    """A figure with what it shows in words."""

    name: str
    """Of the file, without its ending."""
    caption: str
    png: bytes


Block = Heading | Paragraph | Table | tuple[Table, ...] | Picture
"""What a page is made of; tables in a tuple stand side by side where there is room."""


def html_page(title: str, body: str) -> str:
    """Put a body of HTML into a page that refers to no other file."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def html_table(headings: Sequence[str], rows: Sequence[str], text_columns: Sequence[str]) -> str:
    """A table that scrolls sideways where the screen is narrow.

    Args:
        headings: plain text.
        rows: HTML, `<tr>…</tr>` each.
        text_columns: headings of the columns that hold words; the others hold numbers.
    """
    head = "".join(
        f"<th>{escape(text)}</th>"
        if text in text_columns
        else f'<th class="number">{escape(text)}</th>'
        for text in headings
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def figure_png(figure: Figure) -> bytes:
    """Draw a figure as PNG, at 140 dots an inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()


def png_uri(png: bytes) -> str:
    """A picture as a `data:` address."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def render_html(title: str, blocks: Sequence[Block]) -> str:
    """Build the page; all text is escaped."""
    return html_page(title, "\n".join(_html(block) for block in blocks))


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Paragraph(text, note):
            return f'<p class="note">{escape(text)}</p>' if note else f"<p>{escape(text)}</p>"
        case Table():
            return _html_table(block)
        case Picture(_, caption, png):
            text = escape(caption)
            return (
                f'<figure><div class="scroll"><img alt="{text}" src="{png_uri(png)}"></div>'
                f"<figcaption>{text}</figcaption></figure>"
            )
        case _:
            return f'<div class="tables">{"".join(_html_table(table) for table in block)}</div>'


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}>{escape(cell)}</{tag}>"
            if column < table.text_columns
            else f'<{tag} class="number">{escape(cell)}</{tag}>'
            for column, cell in enumerate(cells)
        )

    body = "".join(
        ('<tr class="ours">' if index in table.ours else "<tr>") + f"{row(cells, 'td')}</tr>"
        for index, cells in enumerate(table.rows)
    )
    return (
        f'<div class="scroll"><table><caption>{escape(table.caption)}</caption>'
        f"<thead><tr>{row(table.headings, 'th')}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def render_markdown(blocks: Sequence[Block]) -> str:
    """Build Markdown that shows each `Picture` from a file NAME.png beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Paragraph(text, note):
            return f"> {_plain(text)}" if note else _plain(text)
        case Table():
            return _markdown_table(block)
        case Picture(name, caption, _):
            return f"![{_plain(caption)}]({name}.png)\n\n*{_plain(caption)}*"
        case _:
            return "\n\n".join(_markdown_table(table) for table in block)


def _markdown_table(table: Table) -> str:
    marks = [
        "---" if column < table.text_columns else "---:" for column in range(len(table.headings))
    ]
    lines = [[_plain(text) for text in table.headings], marks]
    for index, row in enumerate(table.rows):
        cells = [_plain(cell) for cell in row]
        if index in table.ours:
            cells[0] = f"**{cells[0]}**"
        lines.append(cells)
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"*{_plain(table.caption)}*\n\n{rows}"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, HTML in it included."""
    return re.sub(r"([\\`*_\[\]|<>#])", r"\\\1", " ".join(text.split()))
