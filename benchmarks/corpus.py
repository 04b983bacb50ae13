"""Reading and cleaning beside datatrove on the same documents, and what the full corpora would take on paper.

    python -m benchmarks.corpus [FILE …] [--documents N] [--rounds N]

Files default to the small corpus under data/. Rivals run in turn, round after round; printed are medians per core.
datatrove's filters are those of FineWeb-2 for Japanese, once with the words that ours count, once with Sudachi's, for
which they were made (`pip install spacy sudachipy sudachidict_core`).
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from datatrove.data import Document as TheirDocument
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.utils import word_tokenizers
from loguru import logger

from benchmarks.machine import header
from janeox.config import CorpusConfig
from janeox.corpus.cleaner import Cleaner
from janeox.corpus.read import BadRows, read_documents
from janeox.corpus.unpack import PORTION, unpack
from janeox.corpus.words import words

ROOT = Path(__file__).parent.parent
CORPORA = {"CC-100": (25.8e9 * 3, "xz"), "mC4-ja": (830e9, "gz"), "jawiki": (9e9 * 4, "bz2")}
"""UTF-8 bytes of text: 25.8 B characters (Swallow, arXiv 2404.17733) of 3 bytes; the data set's page; an estimate: 9 GB
of bzip2 unpack to about four times as much."""


class OurWords(word_tokenizers.WordTokenizer):
    def word_tokenize(self, text: str) -> list[str]:
        return words(text)

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError


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


def race(runs: dict[str, Callable[[], object]], size: float, rounds: int) -> dict[str, float]:
    """Runs each in turn, `rounds` times; prints and returns the median of bytes per second, in MB."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            speeds[name].append(size / 1e6 / (time.perf_counter() - started))
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"  {name:44} {median:8.2f} MB/s   {first / median:7.2f}", flush=True)
    return medians


def drain(path: Path) -> None:
    with path.open("rb") as file:
        stream = unpack(path, file)
        while stream.read(PORTION):
            pass


def read(path: Path) -> int:
    return sum(1 for _ in read_documents(path, "s", BadRows()))


def reading(paths: list[Path], rounds: int) -> dict[str, float]:
    found = {}
    for path in paths:
        size = sum(len(document.text.encode()) for document in read_documents(path, "s", BadRows()))
        print(f"\nreading {path.name}, {size / 1e6:.1f} MB of text; last column: how many times as long as the first")
        runs: dict[str, Callable[[], object]] = {
            "janeox": partial(read, path),
            "its decompressor alone": partial(drain, path),
        }
        if "json.gz" in path.name and "wiki" not in path.name:
            reader = JsonlReader(str(path.parent), glob_pattern=path.name, id_key="url")
            runs["datatrove JsonlReader"] = lambda reader=reader: sum(1 for _ in reader.run())
        found[path.suffix.removeprefix(".")] = race(runs, size, rounds)["janeox"]
    return found


def cleaning(paths: list[Path], number: int, rounds: int) -> dict[str, float]:
    raw = [d for p in paths for d in itertools.islice(read_documents(p, "s", BadRows()), number // len(paths))]
    cleaner = Cleaner(CorpusConfig())
    texts = [cleaner.clean(document) for document in raw]
    size = sum(len(text.encode()) for text in texts)
    print(f"\ncleaning {len(texts):,} documents, {size / 1e6:.1f} MB; last column as above")
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
    medians = race(runs, size, rounds)
    print("janeox's other parts, of the same documents")
    parts = race(
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
    return {"fineweb2": medians["janeox fineweb2"], "clean": parts["what is taken out (Cleaner.clean)"]}


def on_paper(read_speed: dict[str, float], clean_speed: dict[str, float]) -> None:
    """Core-hours of reading and cleaning with the slowest preset here, and hours on nodes of 64 cores kept busy."""
    print("\non paper: core-hours and hours on 1, 8 and 64 nodes of 64 cores (reading, cleaning, preset fineweb2)")
    total = 0.0
    for name, (size, packing) in CORPORA.items():
        slowest = read_speed.get(packing, min(read_speed.values()))
        hours = sum(size / 1e6 / speed for speed in (slowest, *clean_speed.values())) / 3600
        total += hours
        print(f"  {name:8} {size / 1e9:6.0f} GB of text  {hours:8.1f} core-hours")
    wall = "  ".join(f"{nodes} nodes {total / 64 / nodes:.3f} h" for nodes in (1, 8, 64))
    print(f"  all                       {total:8.1f} core-hours   {wall}")
    one = CORPORA["CC-100"][0] / 1e6 / read_speed.get("xz", min(read_speed.values())) / 3600
    print(f"  CC-100 is one xz file, unpacked by one core: {one:.2f} h at least, whatever the number of nodes")


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
    read_speed = reading(paths, asked.rounds)
    on_paper(read_speed, cleaning(paths, asked.documents, asked.rounds))


if __name__ == "__main__":
    main()
