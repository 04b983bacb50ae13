"""Counts the lines on which each library's reading of a tokenizer folder differs from sentencepiece.

    python -m benchmarks.tokenizer_agreement FOLDER FILE … [--lines 900000] [--generated 100000]

FILE is a corpus file in any format that janeox reads; each line of its text is a try, or several of 60 characters.
Generated lines, the hard strings of the tests and lines of 1 MB are added. `ids` counts lines encoded otherwise
(without `</s>`), `text` those to which sentencepiece's ids are not decoded. FOLDER gets the files for other libraries
first. janeox is also tried on lines that hold surrogates, which other libraries refuse.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--lines", type=int, default=900_000, help="the first of the files in turn")
    parser.add_argument("--generated", type=int, default=100_000)
    parser.add_argument("--examples", type=int, default=2, help="shown of each kind of difference")
    arguments = parser.parse_args()
    export(arguments.folder)
    lines = list(taken(arguments.files, arguments.lines))
    lines += HARD_STRINGS + generated_lines(arguments.generated, seed=0) + long_lines(lines)
    print(header())
    compare(arguments.folder, lines, arguments.examples)


def compare(folder: Path, lines: list[str], examples: int) -> None:
    """Prints a table: library, lines tried, lines with other ids, lines with other text, examples."""
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(next(folder.glob("*.model"))))
    expected = oracle.encode(lines, num_threads=1)
    texts = oracle.decode(expected)
    print(
        f"{folder.name}: {len(oracle):,} pieces, {sum(map(len, lines)):,} characters, {sum(map(len, expected)):,} ids"
    )
    print(f"{'library':<32}{'lines':>11}{'ids':>9}{'text':>9}")

    def row(name: str, other_ids: list[int], other_text: list[int], count: int = len(lines)) -> None:
        print(f"{name:<32}{count:>11,}{len(other_ids):>9,}{len(other_text):>9,}", flush=True)
        for at in other_ids[:examples] + other_text[:examples]:
            print(f"    {lines[at][:60]!r}", flush=True)

    tokenizer = Tokenizer.load(folder)
    whole = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in SURROGATES]
    ours = tokenizer.batch([*lines, *SURROGATES])
    wanted = [*expected, *oracle.encode(whole)]
    other_ids = [at for at, (a, b) in enumerate(zip(ours, wanted, strict=True)) if a != b]
    row("janeox", other_ids, differing(map(tokenizer.decode, expected), texts), len(ours))
    row("janeox, streamed", [], differing((streamed(tokenizer, ids) for ids in expected), texts))
    del ours
    with tempfile.TemporaryDirectory() as tries:
        for name, value in {"lines": lines, "ids": expected, "texts": texts}.items():
            (Path(tries) / f"{name}.json").write_text(json.dumps(value))
        for kind in ("tokenizers", "fast"):
            command = [sys.executable, str(READER), kind, str(folder), tries]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            row(found["version"], found["ids"], found["text"])
        for kind in ("fast", "slow"):
            found = run_transformers4(READER.read_text(encoding="utf-8"), kind, folder, tries)
            row(found["version"], found["ids"], found["text"])


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
