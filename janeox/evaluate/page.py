"""The page of `janeox compare`: one file, no script, nothing from elsewhere."""

from html import escape
from typing import Any

from janeox.evaluate.reference import SOURCE

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { padding: .4rem .7rem; border-bottom: 1px solid #8885; text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left }
tr.published { opacity: .75; font-style: italic }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem }
.samples > div { border: 1px solid #8885; border-radius: .5rem; padding: .8rem; white-space: pre-wrap }
h4 { margin: 0 0 .4rem; overflow-wrap: anywhere }
.note { font-size: .85rem; opacity: .8 }
"""


def page(table: list[list[str]], rows: dict[str, dict[str, Any]]) -> str:
    """HTML.

    Args:
        table: header and rows; those after the models are published figures.
        rows: by model what was measured.
    """
    header, *lines = table
    body = ["<tr>" + "".join(f"<th scope=col>{escape(cell)}</th>" for cell in header) + "</tr>"]
    for number, line in enumerate(lines):
        kind = "" if number < len(rows) else " class=published"
        body.append(f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>")
    published = "" if len(lines) == len(rows) else f"<p class=note>Published scores: {escape(SOURCE)}; percent.</p>"
    prompts = list(dict.fromkeys(prompt for row in rows.values() for prompt in row["samples"]))
    samples = "".join(_samples(prompt, rows) for prompt in prompts)
    documents = next(iter(rows.values()))["documents"]
    return f"""<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>janeox: comparison of models</title><style>{STYLE}</style>
<h1>Comparison</h1>
<div class=wide><table>{"".join(body)}</table></div>
<p class=note>Perplexity is a figure of each model's own tokens; bits a byte can be compared. Both over the same
{documents} documents, each by itself; in brackets the 95 % interval over them. Speeds are of one text at a time.</p>
{published}
<h2>Continuations</h2>
{samples}
</html>
"""


def _samples(prompt: str, rows: dict[str, dict[str, Any]]) -> str:
    columns = "".join(
        f"<div lang=ja><h4>{escape(name)}</h4>{escape(prompt)}<b>{escape(row['samples'].get(prompt, ''))}</b></div>"
        for name, row in rows.items()
    )
    return f"<h3 lang=ja>{escape(prompt)}</h3><div class=samples>{columns}</div>"
