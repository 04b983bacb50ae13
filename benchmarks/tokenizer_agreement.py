"""Counts the lines on which each library's reading of tokenizer folders differs from sentencepiece.

    python -m benchmarks.tokenizer_agreement FOLDER … --text FILE … [--lines 900000] [--generated 100000]

FILE is a corpus file in any format that janeox reads; each line of its text is a try, or several of 60 characters.
Generated lines, the hard strings of the tests and lines of 1 MB are added. `ids` counts lines encoded otherwise
(without `</s>`); of these, `ties` are lines of which both cuts spell the same text and have equal sums of scores, in
exact arithmetic, so that no order of summing could be called wrong. `text` counts lines to which sentencepiece's ids
are not decoded. Each FOLDER gets the files for other libraries first. janeox is also tried on lines that hold
surrogates, which other libraries refuse.
"""

import argparse
import itertools
import json
import math
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece

from benchmarks.machine import header
from janeox.corpus.read import BadRows, read_documents
from janeox.tokenizer import StreamDecoder, Tokenizer
from janeox.tokenizer.export import export
from tests.hard_strings import HARD_STRINGS, generated_lines
from tests.transformers4 import run_transformers4

READER = Path(__file__).with_name("tokenizer_reader.py")
SURROGATES = ["\ud83d\ude00", "a\ud800b\udc00", "\udc00\ud800", "猫\ud83d"]
LONGEST = 60
HEAD = f"{'library':<32}{'lines':>11}{'ids':>9}{'ties':>9}{'text':>9}"


@dataclass
class Row:
    lines: int
    ids: list[tuple[int, list[int]]]
    """(line, the ids it was given) where they differ"""
    text: list[int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--text", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--lines", type=int, default=900_000, help="the first of the files in turn")
    parser.add_argument("--generated", type=int, default=100_000)
    parser.add_argument("--examples", type=int, default=2, help="shown of each kind of difference")
    arguments = parser.parse_args()
    lines = list(taken(arguments.text, arguments.lines))
    lines += HARD_STRINGS + generated_lines(arguments.generated, seed=0) + long_lines(lines)
    print(header())
    totals: dict[str, Counter[str]] = {}
    for folder in arguments.folders:
        export(folder)
        compare(folder, lines, arguments.examples, totals)
    print(f"all {len(arguments.folders)} tokenizers\n{HEAD}")
    for name, total in totals.items():
        show(name, total)


def compare(folder: Path, lines: list[str], examples: int, totals: dict[str, Counter[str]]) -> None:
    """Prints a table of the libraries with examples, and adds its figures to `totals`."""
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(next(folder.glob("*.model"))))
    scores = [score for _, score in json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]]
    expected = oracle.encode(lines, num_threads=1)
    texts = oracle.decode(expected)
    size = f"{sum(map(len, lines)):,} characters, {sum(map(len, expected)):,} ids"
    print(f"{folder.name}: {len(oracle):,} pieces, {size}\n{HEAD}", flush=True)
    for name, row in rows(folder, lines, expected, texts, oracle):
        ties = [at for at, ids in row.ids if at < len(lines) and tied(oracle, scores, ids, expected[at])]
        found = Counter(lines=row.lines, ids=len(row.ids), ties=len(ties), text=len(row.text))
        show(name, found)
        totals.setdefault(name, Counter()).update(found)
        others = [at for at, _ in row.ids if at not in set(ties)]
        for kind, places in {"tie": ties, "ids": others, "text": row.text}.items():
            for at in places[:examples]:
                print(f"    {kind}: {[*lines, *SURROGATES][at][:60]!r}", flush=True)


def show(name: str, found: Counter[str]) -> None:
    print(f"{name:<32}{found['lines']:>11,}{found['ids']:>9,}{found['ties']:>9,}{found['text']:>9,}", flush=True)


def tied(oracle: sentencepiece.SentencePieceProcessor, scores: list[float], a: list[int], b: list[int]) -> bool:
    """Whether the two cuts spell one text and their scores have the same sum; pieces that both have cancel out."""
    more, less = Counter(a) - Counter(b), Counter(b) - Counter(a)
    sums = [math.fsum(scores[id] for id in rest.elements()) for rest in (more, less)]
    return sums[0] == sums[1] and oracle.decode(a) == oracle.decode(b)


def rows(
    folder: Path, lines: list[str], expected: list[list[int]], texts: list[str], oracle: Any
) -> Iterator[tuple[str, Row]]:
    """(library, its row), this package first."""
    tokenizer = Tokenizer.load(folder)
    whole = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in SURROGATES]
    ours = tokenizer.batch([*lines, *SURROGATES])
    wanted = [*expected, *oracle.encode(whole)]
    other_ids = [(at, a) for at, (a, b) in enumerate(zip(ours, wanted, strict=True)) if a != b]
    yield "janeox", Row(len(ours), other_ids, differing(map(tokenizer.decode, expected), texts))
    del ours, wanted
    yield (
        "janeox, streamed",
        Row(len(lines), [], differing((streamed(tokenizer, ids) for ids in expected), texts)),
    )
    with tempfile.TemporaryDirectory() as tries:
        for name, value in {"lines": lines, "ids": expected, "texts": texts}.items():
            (Path(tries) / f"{name}.json").write_text(json.dumps(value))
        for kind in ("tokenizers", "fast"):
            command = [sys.executable, str(READER), kind, str(folder), tries]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            yield found["version"], Row(len(lines), found["ids"], found["text"])
        for kind in ("fast", "slow"):
            found = run_transformers4(READER.read_text(encoding="utf-8"), kind, folder, tries)
            yield found["version"], Row(len(lines), found["ids"], found["text"])


def differing(got: Iterator[str], wanted: list[str]) -> list[int]:
    return [at for at, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b]


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    decoder = StreamDecoder(tokenizer)
    return "".join(map(decoder.push, ids)) + decoder.flush()


def long_lines(lines: list[str]) -> list[str]:
    """About 1 MB each: mixed text, and runs."""
    mixed = "".join(random.Random(0).choices(lines or HARD_STRINGS, k=20_000))
    return [mixed[:350_000], "ー" * 350_000, "猫 " * 250_000, "😀" * 260_000]


def taken(files: list[Path], count: int) -> Iterator[str]:
    """The first lines of each file, the files having equal parts of `count`."""
    for file in files:
        parts = (line[at : at + LONGEST] for line in read_lines(file) for at in range(0, len(line), LONGEST))
        yield from itertools.islice(parts, count // len(files))


def read_lines(file: Path) -> Iterator[str]:
    """The lines of a corpus file, in any format that janeox reads."""
    for document in read_documents(file, file.name, BadRows()):
        yield from document.text.split("\n")


if __name__ == "__main__":
    main()
