"""Reading and cleaning beside datatrove on the same documents.

    python -m benchmarks.corpus [FILE …] [--documents N] [--rounds N]

Files default to the small corpus under data/; with --documents 0 nothing is cleaned. Rivals run in turn, round after
round; printed are medians. datatrove's filters are those of FineWeb-2 for Japanese, once with the words that
ours count, once with Sudachi's, for which they were made (`pip install spacy sudachipy sudachidict_core`).
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson
from datatrove.data import Document as TheirDocument
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.utils import word_tokenizers
from loguru import logger

from benchmarks.machine import header
from janeox.config import CorpusConfig
from janeox.corpus.cleaner import Cleaner
from janeox.corpus.read import BadRows, read_documents
from janeox.corpus.unpack import BUFFER, unpack
from janeox.corpus.words import words

ROOT = Path(__file__).parent.parent
COLUMNS = "times as long as the first; MB a second of processor time"


class OurWords:
    """As much of datatrove's WordTokenizer as its filters call."""

    def word_tokenize(self, text: str) -> list[str]:
        return words(text)


def filters(language: str) -> list:
    top = ((2, 0.239), (3, 0.196), (4, 0.172))
    repeated = ((5, 0.243), (6, 0.225), (7, 0.207), (8, 0.19), (9, 0.175), (10, 0.159))
    quality = {"short_line_thr": 999, "char_duplicates_ratio": 0.1, "line_punct_thr": 0.096, "new_line_ratio": 0.13}
    gopher = {"min_avg_word_length": 1, "max_avg_word_length": 6, "max_non_alpha_words_ratio": 0.759}
    return [
        GopherRepetitionFilter(0.328, 0, 0, 0, top, repeated, language=language),
        FineWebQualityFilter(**quality, language=language),
        GopherQualityFilter(**gopher, stop_words=list("のにをはたてがとで年し・月れさ"), language=language),
    ]


def theirs(texts: list[str], language: str) -> list[bool]:
    steps = filters(language)
    return [bool(t) and all(step.filter(TheirDocument(t, "1")) is True for step in steps) for t in texts]


def ours(texts: list[str], preset: str) -> list[bool]:
    cleaner = Cleaner(CorpusConfig(preset=preset, min_chars=1))  # type: ignore[arg-type]
    return [cleaner.reason_to_drop(text, "json") is None for text in texts]


def race(runs: dict[str, Callable[[], object]], size: float, rounds: int) -> None:
    """Runs each in turn, `rounds` times; prints medians: MB a second, how many times as long as the first, and MB a
    second of processor time, all threads together.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started, used = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - started, time.process_time() - used))
    medians = {
        name: [size / 1e6 / statistics.median(column) for column in zip(*found, strict=True)]
        for name, found in seconds.items()
    }
    first = next(iter(medians.values()))[0]
    for name, (speed, of_processor) in medians.items():
        print(f"  {name:44} {speed:8.2f} MB/s   {first / speed:7.2f} {of_processor:8.2f} MB/s", flush=True)


def drain(path: Path) -> None:
    with path.open("rb") as file:
        stream = unpack(path, file)
        while stream.read(BUFFER):
            pass


def parse(path: Path) -> None:
    """The least that a reader of JSON rows can do with orjson: unpack, cut into lines, parse, hold what was parsed."""
    with path.open("rb") as file, unpack(path, file) as stream:
        for line in stream:
            row = orjson.loads(line)
    del row


def read(path: Path) -> int:
    return sum(1 for _ in read_documents(path, "s", BadRows()))


def reading(paths: list[Path], rounds: int) -> None:
    for path in paths:
        size = sum(len(document.text.encode()) for document in read_documents(path, "s", BadRows()))
        print(f"\nreading {path.name}, {size / 1e6:.1f} MB of text; {COLUMNS}")
        runs: dict[str, Callable[[], object]] = {
            "janeox": partial(read, path),
            "its decompressor alone": partial(drain, path),
        }
        if ".json" in path.name:
            runs["decompressor, lines and orjson alone"] = partial(parse, path)
        if "json.gz" in path.name and "wiki" not in path.name:
            reader = JsonlReader(str(path.parent), glob_pattern=path.name, id_key="url")
            runs["datatrove JsonlReader"] = lambda reader=reader: sum(1 for _ in reader.run())
        race(runs, size, rounds)


def cleaning(paths: list[Path], number: int, rounds: int) -> None:
    raw = [d for p in paths for d in itertools.islice(read_documents(p, "s", BadRows()), number // len(paths))]
    cleaner = Cleaner(CorpusConfig())
    texts = [cleaner.clean(document) for document in raw]
    size = sum(len(text.encode()) for text in texts)
    print(f"\ncleaning {len(texts):,} documents, {size / 1e6:.1f} MB; {COLUMNS}")
    sudachi = word_tokenizers.load_word_tokenizer
    word_tokenizers.load_word_tokenizer = lambda code: OurWords() if code == "ours" else sudachi(code)
    runs: dict[str, Callable[[], object]] = {
        "janeox fineweb2": lambda: ours(texts, "fineweb2"),
        "datatrove's FineWeb-2 filters, our words": lambda: theirs(texts, "ours"),
    }
    try:
        theirs(texts[:1], "ja")
        runs["datatrove's FineWeb-2 filters, Sudachi's words"] = lambda: theirs(texts, "ja")
    except ImportError as error:
        print(f"  Sudachi: not installed ({error.name})")
    race(runs, size, rounds)
    print("janeox's other parts, of the same documents")
    race(
        {
            "what is taken out (Cleaner.clean)": lambda: [cleaner.clean(document) for document in raw],
            **{f"preset {name}": partial(ours, texts, name) for name in ("light", "swallow", "llm-jp")},
        },
        size,
        rounds,
    )
    mine = ours(texts, "fineweb2")
    for name, code in (("our words", "ours"), ("Sudachi's words", "ja")):
        if code == "ours" or len(runs) > 2:
            same = sum(a == b for a, b in zip(mine, theirs(texts, code), strict=True))
            print(f"the same decision as datatrove with {name}: {same:,} of {len(texts):,} ({same / len(texts):.1%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--documents", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    logger.remove()
    paths = asked.files or sorted(
        path for name in ("cc100", "mc4", "wiki") for path in (ROOT / "data" / name).iterdir()
    )
    print(header())
    reading(paths, asked.rounds)
    if asked.documents:
        cleaning(paths, asked.documents, asked.rounds)


if __name__ == "__main__":
    main()
