"""MinHash of documents beside datatrove's, and the memory of cleaning as the corpus grows.

    python -m benchmarks.minhash FILE … [--documents 200] [--rounds 5]     speed, the rival in turn
    python -m benchmarks.minhash FILE … --memory [--scale 4]   peak memory at 1×, 4× and 16× that many times the files

Memory is that of one process that goes from raw files to shards as `janeox run` does, by step. It is measured twice for
each size: with every copy of the files' documents in a raw file of its own, and with all in one raw file. In each copy
the kanji are others, so that there are ever more distinct documents, lines and hashes.

Both hash the runs of 5 letters of the same documents into 14 bands of 8 rows. datatrove cuts a text into words; here it
is given single letters for words, so that both compare the same sets and no segmenter is timed.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np

from benchmarks.machine import header
from janeox.corpus.near import band_keys, letters
from janeox.corpus.read import BadRows, read_documents

CHARS, BANDS, ROWS = 5, 14, 8
CHILD = """
import sys
from pathlib import Path
from janeox.config import CorpusConfig, TokenizerConfig
from janeox.corpus.pipeline import clean_corpus, cleaned
from janeox.data.tokenize import tokenize_corpus
from janeox.tokenizer.train import train_tokenizer

def peak():
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")  # the next peak is that of the next step
    return status.partition("VmHWM:")[2].split()[0]

out = Path(sys.argv[2])
repetition = dict(near_duplicates=True, repeated_lines=10, decontaminate_valid=True)
report = clean_corpus(CorpusConfig({"copies": sys.argv[1]}, workers=1, **repetition), out)
peaks = [peak()]
texts = (document.text for document in cleaned(out, "train"))
tokenizer = train_tokenizer(texts, TokenizerConfig(sample_chars=2_000_000))
peaks.append(peak())
tokenize_corpus(out, tokenizer, out.with_name("shards"))
came = report["sources"]["copies"]["in"]
print(came["documents"], came["bytes"], *peaks, peak())
"""


def speed(texts: list[str], rounds: int) -> None:
    import xxhash
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    with tempfile.TemporaryDirectory() as folder:
        config = MinhashConfig(n_grams=CHARS, num_buckets=BANDS, hashes_per_bucket=ROWS)
        letters_for_words = SimpleNamespace(word_tokenize=list)
        with patch("datatrove.pipeline.dedup.minhash.load_word_tokenizer", lambda language: letters_for_words):
            theirs = MinhashDedupSignature(folder, config)
        # Its own default hands text to xxhash, which takes bytes only since version 4.
        theirs._hash_func = lambda gram: xxhash.xxh64_intdigest(gram.encode())

        def ours_all() -> None:
            for text in texts:
                band_keys(text, CHARS, BANDS, ROWS)

        def theirs_all() -> None:
            for text in texts:
                theirs.get_signature(theirs.get_shingles(text))

        seconds: dict[str, list[float]] = {"janeox": [], "datatrove": []}
        for _ in range(rounds):
            for name, work in (("janeox", ours_all), ("datatrove", theirs_all)):
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts)} documents, {size:.1f} MB, {sum(len(letters(text)) for text in texts):,} letters; one core")
    for name, times in seconds.items():
        print(f"  {name:<10} {size / statistics.median(times):6.2f} MB/s")
    ratios = [b / a for a, b in zip(seconds["janeox"], seconds["datatrove"], strict=True)]
    print(f"  {statistics.median(ratios):.1f} times datatrove's (median of {rounds} rounds, one after the other)")


def memory(files: list[Path], scale: int) -> None:
    """Both ways of growing at once, a process each."""
    texts = [document.text for file in files for document in read_documents(file, "s", BadRows())]
    print("                                     peak MB:")
    print("  raw files  documents  MB of text     clean  train-tokenizer  tokenize")
    for copies in (scale, 4 * scale, 16 * scale):
        with tempfile.TemporaryDirectory() as temporary:
            running = []
            for number in (copies, 1):
                folder = Path(temporary) / str(len(running))
                folder.mkdir()
                for copy in range(copies):
                    with (folder / f"{copy % number:04d}.txt").open("a", encoding="utf-8") as file:
                        file.writelines(changed(text, copy) + "\n\n" for text in texts)
                call = [sys.executable, "-c", CHILD, f"{folder}/*.txt", f"{folder}/out"]
                running.append((number, subprocess.Popen(call, stdout=subprocess.PIPE, text=True)))
            for number, process in running:
                documents, size, *peaks = map(int, process.communicate()[0].split()[-5:])
                clean, train, tokenize = (f"{peak / 1e3:,.0f}" for peak in peaks)
                row = f"{number:>11}  {documents:>9,}  {size / 1e6:>10,.1f}  {clean:>8}  {train:>15}  {tokenize:>8}"
                print(row, flush=True)


def changed(text: str, copy: int) -> str:
    """Another text of the same length and scripts: every kanji is the one `copy` places further on. No empty lines."""
    codes = np.frombuffer("\n".join(filter(None, text.split("\n"))).encode("utf-32-le"), np.uint32)
    kanji = (codes >= 0x4E00) & (codes < 0x9F00)
    return (codes + np.uint32(copy) * kanji).astype(np.uint32).tobytes().decode("utf-32-le")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--scale", type=int, default=4)
    options = parser.parse_args()
    print(header(), "\n")
    if options.memory:
        memory(options.files, options.scale)
        return
    documents = itertools.chain.from_iterable(read_documents(file, file.name, BadRows()) for file in options.files)
    speed([document.text for document in itertools.islice(documents, options.documents)], options.rounds)


if __name__ == "__main__":
    main()
