"""Counts the lines on which each library's reading of a tokenizer folder differs from sentencepiece.

    python -m benchmarks.tokenizer_agreement FOLDER FILE … [--lines 20000] [--generated 5000]

FILE is a corpus file in any format that janeox reads; each line of its text is one try. Hard and generated lines are added. `ids` compares encoding without `</s>`, `text` what sentencepiece's ids are decoded to.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import sentencepiece
import tokenizers
import transformers

from janeox.corpus.read import BadRows, read_documents
from janeox.tokenizer import StreamDecoder, Tokenizer
from tests.hard_strings import HARD_STRINGS, generated_lines
from tests.transformers4 import run_transformers4

Reading = tuple[list[list[int]], list[str]]
"""ids by line, text by line"""

TRANSFORMERS4 = """
import json, sys
from transformers import AutoTokenizer
folder, file, fast = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=fast == "fast")
lines, oracle = json.load(open(file, encoding="utf-8"))
ids = [tokenizer.encode(line, add_special_tokens=False) for line in lines]
print(json.dumps([ids, [tokenizer.decode(i) for i in oracle]]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--lines", type=int, default=20_000, help="sampled from the files together")
    parser.add_argument("--generated", type=int, default=5_000)
    arguments = parser.parse_args()
    texts = [line for file in arguments.files for line in read_lines(file)]
    lines = random.Random(0).sample(texts, min(arguments.lines, len(texts)))
    lines += HARD_STRINGS + generated_lines(arguments.generated, seed=0)
    compare(arguments.folder, lines)


def compare(folder: Path, lines: list[str]) -> None:
    """Prints a table: library, lines tried, lines with other ids, lines with other text, the first differing line."""
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    expected = [oracle.encode(line) for line in lines]
    texts = [oracle.decode(ids) for ids in expected]
    print(f"{'library':<24}{'lines':>9}{'ids':>9}{'text':>9}  first difference")
    for name, read in readers(folder, lines, expected).items():
        ids, decoded = read()
        other_ids = [line for line, a, b in zip(lines, ids, expected, strict=True) if a != b]
        other_text = [line for line, a, b in zip(lines, decoded, texts, strict=True) if a != b]
        first = next(iter(other_ids + other_text), "")
        print(f"{name:<24}{len(lines):>9,}{len(other_ids):>9,}{len(other_text):>9,}  {first[:60]!r}", flush=True)


def readers(folder: Path, lines: list[str], expected: list[list[int]]) -> dict[str, Callable[[], Reading]]:
    def janeox() -> Reading:
        tokenizer = Tokenizer.load(folder)
        return tokenizer.batch(lines, threads=2), [tokenizer.decode(ids) for ids in expected]

    def stream() -> Reading:
        tokenizer = Tokenizer.load(folder)
        texts = []
        for ids in expected:
            decoder = StreamDecoder(tokenizer)
            texts.append("".join(map(decoder.push, ids)) + decoder.flush())
        return expected, texts

    def plain() -> Reading:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = [tokenizer.encode(line, add_special_tokens=False).ids for line in lines]
        return ids, [tokenizer.decode(i) for i in expected]

    def transformers5() -> Reading:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=False)
        ids = [tokenizer.encode(line, add_special_tokens=False) for line in lines]
        return ids, [tokenizer.decode(i) for i in expected]

    def transformers4(fast: str) -> Reading:
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "lines.json"
            file.write_text(json.dumps([lines, expected]), encoding="utf-8")
            return tuple(run_transformers4(TRANSFORMERS4, folder, file, fast))

    return {
        "janeox": janeox,
        "janeox, streamed": stream,
        f"tokenizers {tokenizers.__version__}": plain,
        f"transformers {transformers.__version__}": transformers5,
        "transformers 4, fast": lambda: transformers4("fast"),
        "transformers 4, slow": lambda: transformers4("slow"),
    }


def read_lines(file: Path) -> Iterator[str]:
    """The lines of a corpus file, in any format that janeox reads."""
    for document in read_documents(file, file.name, BadRows()):
        yield from document.text.split("\n")


if __name__ == "__main__":
    main()
