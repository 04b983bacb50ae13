"""Whether every question of JGLUE is found where it is planted, and how many honest documents are taken for one.

    python -m benchmarks.decontamination DATA [--every 1]

DATA holds `jglue/` (the published files) and `train/` (raw corpora that JGLUE was removed from when they were made).
Each question of JCommonsenseQA's and JSQuAD's valid parts is planted alone in a real document: as a line of its own,
and as a sentence inside a paragraph (with 。 behind it where it ends in no mark).
"""

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import header
from janeox.corpus.contamination import LENGTHS, Runs, evaluation_runs
from janeox.corpus.near import letters
from janeox.corpus.read import BadRows, known, read_documents


def questions(folder: Path) -> dict[str, list[str]]:
    commonsense = (folder / "jcommonsenseqa-valid-v1.3.json").read_text(encoding="utf-8").splitlines()
    squad = json.loads((folder / "jsquad-valid-v1.3.json").read_text(encoding="utf-8"))["data"]
    return {
        "JCommonsenseQA": [json.loads(row)["question"] for row in commonsense],
        "JSQuAD": [
            entry["question"] for page in squad for paragraph in page["paragraphs"] for entry in paragraph["qas"]
        ],
    }


def documents(folder: Path) -> Iterator[str]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and known(path)):
        yield from (document.text for document in read_documents(path, "s", BadRows()))


def planted(question: str, text: str) -> tuple[str, str]:
    """The text with the question after its first line, and after a sentence in its middle."""
    first, _, rest = text.partition("\n")
    end = text.find("。", len(text) // 2) + 1
    closed = question if question.rstrip()[-1] in "?？。．" else question + "。"
    return f"{first}\n{question}\n{rest}", text[:end] + closed + text[end:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=1, help="look through every so many-th real document")
    options = parser.parse_args()
    folder = options.data
    print(header(), "\n")
    asked = questions(folder / "jglue")
    runs = evaluation_runs((str(folder / "jglue/*-valid-*.json"),))
    honest = (text for text in documents(folder / "train") if 300 < len(text) < 3000 and text.find("。", 1500) > 0)
    hosts = [text for text in itertools.islice(honest, 400) if not runs.touch(text)]
    for name, found in asked.items():
        hits = Counter()
        for number, question in enumerate(found):
            hits.update(
                way for way, text in enumerate(planted(question, hosts[number % len(hosts)])) if runs.touch(text)
            )
        short = sum(len(letters(question)) < LENGTHS[-1] for question in found)
        print(
            f"{name}: {len(found):,} questions, {short:,} of them under {LENGTHS[-1]} letters; "
            f"found as a line {hits[0]:,}, as a sentence {hits[1]:,}"
        )
    short_only = Runs({}, {letters(q) for found in asked.values() for q in found if len(letters(q)) < LENGTHS[-1]})
    touched = Counter[str]()
    for text in itertools.islice(documents(folder / "train"), 0, None, options.every):
        touched["all"] += 1
        touched["short"] += short_only.touch(text)
        touched["any"] += runs.touch(text)
    print(f"real documents with nothing planted: {touched['all']:,}")
    print(f"  {touched['short']:,} hold a short question (such as 酒は？), {touched['any']:,} any text of these files")


if __name__ == "__main__":
    main()
