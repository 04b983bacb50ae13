"""The report of a cleaned corpus as a page: one file, no script, nothing from elsewhere."""

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import tomli_w

from janeox.atomic import new_file
from janeox.corpus import drops
from janeox.corpus.characters import SCRIPTS
from janeox.corpus.tally import SPLITS

PAGE = "report.html"
SHOWN = 3
"""Dropped documents shown, per rule; of each its first `CHARS` characters."""
CHARS = 300
GROUPS = {
    "text": "Documents of one text",
    "near": "Documents that share a band of their MinHash (each band counted for itself)",
    "line": "Lines that are the same",
}
STYLE = """
:root { color-scheme: light dark; --c0: #0072b2; --c1: #d98200; --c2: #009e73; --c3: #b8579a; --c4: #8886 }
body { font: 16px/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8885; text-align: right; white-space: nowrap }
th:first-child, td:first-child, td.text { text-align: left }
tr.source td { font-weight: bold; border-bottom: 0; padding-top: .8rem }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { font-size: .9rem; opacity: .85 }
svg { width: 100%; height: auto } svg text { fill: currentColor; font-size: 11px }
svg .c0 { fill: var(--c0) } svg .c1 { fill: var(--c1) } svg .c2 { fill: var(--c2) }
svg .c3 { fill: var(--c3) } svg .c4 { fill: var(--c4) }
blockquote, pre { margin: .5rem 0; padding: .5rem .8rem; background: #8882; border-radius: .4rem; overflow-x: auto }
blockquote { overflow-wrap: anywhere; white-space: pre-wrap } summary { cursor: pointer }
"""
WIDTH, HEIGHT, ROW = 360, 150, 24


def write_page(corpus: Path, report: dict[str, Any], tokens: dict[str, tuple[int, int]]) -> None:
    """Writes `corpus/report.html`.

    Args:
        report: what `corpus/report.json` says.
        tokens: by source, how many tokens and characters a tokenizer made and had; empty where there is none yet.
    """
    with new_file(corpus / PAGE) as new:
        new.write_text(page(report, dict(_samples(corpus, report)), tokens), encoding="utf-8")


def page(report: dict[str, Any], samples: dict[str, list[dict[str, str]]], tokens: dict[str, tuple[int, int]]) -> str:
    """HTML. `samples`: by rule, rows of `dropped/RULE.jsonl`; the rest as `write_page`."""
    sources = report["sources"]
    bad = [row for source in sources.values() for row in source["bad_rows"]["damaged"] + source["bad_rows"]["first"]]
    count = sum(source["bad_rows"]["count"] for source in sources.values())
    plots = [_bars(f"Documents of {name} by their characters, up to", row["lengths"]) for name, row in sources.items()]
    plots.append(_scripts({name: row["scripts"] for name, row in sources.items()}))
    groups = {GROUPS[kind]: found for kind, found in report["groups"].items() if found}
    plots += [_bars(f"{what}: groups by size, up to", found) for what, found in groups.items()]
    if tokens:
        per_char = {name: number / max(1, chars) for name, (number, chars) in tokens.items()}
        plots.append(_bars("Tokens per character", per_char, ordered=False))
    return f"""<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>janeox: corpus</title><style>{STYLE}</style>
<h1>Corpus</h1>
<h2>From raw to clean</h2>
<div class=wide>{_stages(sources)}</div>
<h2>What was dropped</h2>
<div class=wide>{_dropped(sources)}</div>
{"".join(_examples(rule, rows) for rule, rows in samples.items())}
<h2>What is left</h2>
<div class=plots>{"".join(plots)}</div>
<h2>What could not be read</h2>
<p>{count:,} malformed rows{" and damaged files; some of them:" if bad else "."}</p>
{"".join(f"<blockquote>{escape(row)}</blockquote>" for row in bad[:20])}
<h2>Recipe</h2>
<pre>{escape(tomli_w.dumps({"corpus": report["recipe"]}))}</pre>
</html>
"""


def _samples(corpus: Path, report: dict[str, Any]) -> Iterable[tuple[str, list[dict[str, str]]]]:
    for rule in sorted({rule for source in report["sources"].values() for rule in source["dropped"]}):
        with (corpus / drops.FOLDER / f"{rule}.jsonl").open(encoding="utf-8") as file:
            yield rule, [json.loads(row) for _, row in zip(range(SHOWN), file, strict=False)]


def _table(header: Iterable[str], rows: Iterable[str]) -> str:
    cells = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in header)
    return f"<table><tr>{cells}</tr>{''.join(rows)}</table>"


def _row(cells: Iterable[str], kind: str = "") -> str:
    return f"<tr{kind and f' class={kind}'}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _stages(sources: dict[str, Any]) -> str:
    """Each source's documents, characters and bytes behind each stage, and the share of the raw ones."""
    rows = []
    for name, source in sources.items():
        rows.append(_row([name], "source"))
        kept = {unit: sum(source[split][unit] for split in SPLITS) for unit in source["in"]}
        stages = {"read": source["in"], "clean": source["passed"], "distinct": kept}
        for stage, tally in (stages | {split: source[split] for split in SPLITS}).items():
            shares = [f"{tally[unit] / max(1, source['in'][unit]):.1%}" for unit in ("documents", "bytes")]
            rows.append(_row([stage, *(f"{tally[unit]:,}" for unit in ("documents", "chars", "bytes")), *shares]))
    return _table(("stage", "documents", "characters", "bytes", "of documents", "of bytes"), rows)


def _dropped(sources: dict[str, Any]) -> str:
    """Documents by rule and source, and their share of that source's."""
    rules = sorted({rule for source in sources.values() for rule in source["dropped"]})
    rows = []
    for rule in rules:
        found = {name: source["dropped"].get(rule, {"documents": 0, "chars": 0}) for name, source in sources.items()}
        shares = (
            f"{drop['documents']:,} ({drop['documents'] / max(1, sources[name]['in']['documents']):.1%})"
            for name, drop in found.items()
        )
        rows.append(_row([rule, *shares, f"{sum(drop['chars'] for drop in found.values()):,}"]))
    return _table(("rule", *sources, "characters, all"), rows)


def _examples(rule: str, rows: list[dict[str, str]]) -> str:
    quotes = "".join(
        f"<p>{escape(row['source'])}, {escape(row['where'])}</p><blockquote lang=ja>{escape(row['text'][:CHARS])}"
        f"{'…' if len(row['text']) > CHARS else ''}</blockquote>"
        for row in rows
    )
    return f"<details><summary>{escape(rule)}: examples</summary>{quotes}</details>"


def _bars(caption: str, values: dict[str, float], ordered: bool = True) -> str:
    """A bar a class; `ordered` by the power of two that is its name."""
    names = list(values)
    if ordered and values:
        powers = [int(name).bit_length() for name in values]
        names = [str(1 << power - 1) for power in range(min(powers), max(powers) + 1)]
        values = dict.fromkeys(names, 0) | values
    most = max(values.values(), default=1)
    wide = min(60, WIDTH / max(1, len(names)))
    parts = []
    for place, name in enumerate(names):
        tall = (HEIGHT - 45) * values[name] / most
        shown = f"{values[name]:,}" if ordered else f"{values[name]:.3f}"
        middle, top = (place + 0.5) * wide, HEIGHT - 20 - tall
        parts.append(
            f"<rect class=c0 x={place * wide + 1:.1f} y={top:.1f} width={max(1.0, wide - 2):.1f} height={tall:.1f}>"
            f"<title>{escape(name)}: {shown}</title></rect>"
            f"<text x={middle:.1f} y={HEIGHT - 5} text-anchor=middle>{escape(_short(name))}</text>"
        )
        if not ordered or len(names) <= 6:
            parts.append(f"<text x={middle:.1f} y={top - 4:.1f} text-anchor=middle>{shown}</text>")
    if ordered and len(names) > 6:
        parts.append(f"<text x=2 y=12>most: {most:,}</text>")
    return _figure(caption, HEIGHT, parts)


def _short(name: str) -> str:
    """2048 → 2k, so that the names of many bars have room."""
    for letter, size in (("M", 1 << 20), ("k", 1 << 10)):
        if name.isdigit() and int(name) >= size:
            return f"{int(name) // size}{letter}"
    return name


def _scripts(sources: dict[str, dict[str, int]]) -> str:
    """A bar a source, cut by script."""
    scripts = (*SCRIPTS, "other")
    parts = []
    for place, name in enumerate(scripts):
        parts.append(f"<rect class=c{place} x={72 * place} y=2 width=10 height=10 />")
        parts.append(f"<text x={72 * place + 13} y=11>{name}</text>")
    for number, (name, counts) in enumerate(sources.items()):
        left, top, total = 0.0, ROW * (2 * number + 1), max(1, sum(counts.values()))
        parts.append(f"<text x=0 y={top + 16}>{escape(name)}</text>")
        for place, script in enumerate(scripts):
            share = counts.get(script, 0) / total
            parts.append(
                f"<rect class=c{place} x={left:.1f} y={top + ROW - 4} width={share * WIDTH:.1f} height=20>"
                f"<title>{escape(name)}, {script}: {share:.1%}</title></rect>"
            )
            if share > 0.08:
                parts.append(f"<text x={left + 3:.1f} y={top + ROW + 10}>{share:.0%}</text>")
            left += share * WIDTH
    return _figure("Characters by script", ROW * (2 * len(sources) + 1), parts)


def _figure(caption: str, height: int, parts: list[str]) -> str:
    drawing = f'<svg viewBox="0 0 {WIDTH} {height}" role=img aria-label="{escape(caption)}">{"".join(parts)}</svg>'
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"
