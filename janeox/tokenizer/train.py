"""Training of a sentencepiece unigram model with the model card's options, made so that every library encodes alike.

Three choices go beyond the card's options. The first two remove the reasons for which other implementations of the same
algorithm give other ids, the third makes the card's examples hold whatever the text trained on. What they cost:
docs/tokenizer.md.

- Scores are rounded to 1/64, so that sums of scores are exact in float32 and ties are ties everywhere.
- All printable ASCII is in the vocabulary, so that `</s>` or `<0x41>` in a text can be spelled, never matched.
- No piece joins a space to what is not ASCII, so that every space in Japanese text is a piece `▁` of its own.
"""

import heapq
import io
import json
import random
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece
from rich.console import Console

from janeox.atomic import new_folder
from janeox.config import TokenizerConfig
from janeox.corpus.pipeline import SPLITS, cleaned
from janeox.corpus.read import BadRows, read_documents
from janeox.errors import JaneoxError
from janeox.progress import progress
from janeox.settings.tokenizer import TrainTokenizer
from janeox.tokenizer.model_file import PieceType, read_model, with_scores
from janeox.tokenizer.report import figures_table, measured, sampled, vocabulary
from janeox.tokenizer.tokenizer import SPACE, Tokenizer

PAD, UNKNOWN, BOS, EOS = "[PAD]", "[UNK]", "<s>", "</s>"  # ids 0 to 3; 2 and 3 are those of the rinna series
OTHER_CONTROLS = ("[CLS]", "[SEP]", "[MASK]")
ASCII = "".join(map(chr, range(0x21, 0x7F)))
LONGEST_LINE = 1000  # characters; sentencepiece skips lines above 4,192 bytes, and a character takes up to 4
SCORE_STEPS = 64
BREAK = "\x02"  # tells the trainer where no piece may run on; a control character that is taken out of the text
# The partition of the work changes the last bits of the result, so it is fixed, whatever the number of cores.
PARTITIONS = 16

_SPACE_BEFORE_JAPANESE = re.compile(r" (?=[^\x00-\x7f])")


def train_tokenizer(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Trains on a seeded sample of the lines of `texts`; the same texts and config give the same bytes.

    Raises:
        JaneoxError: there is no text, `vocab_size` is too small or too large for it (names the limit), or
            `character_coverage` is out of range.
    """
    if not 0.98 <= config.character_coverage <= 1:
        raise JaneoxError(
            f"tokenizer.character_coverage = {config.character_coverage}: sentencepiece takes values between 0.98 and 1"
        )
    lines = sample_lines(texts, config.sample_chars, config.seed)
    if not lines:
        raise JaneoxError("no text to train a tokenizer on: every document is empty")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=map(_prepared, lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            normalization_rule_name=config.normalization,
            required_chars=ASCII + SPACE,
            pretokenization_delimiter=BREAK,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece=PAD,
            unk_piece=UNKNOWN,
            bos_piece=BOS,
            eos_piece=EOS,
            control_symbols=list(OTHER_CONTROLS),
            user_defined_symbols=list(config.user_defined_symbols),
            num_threads=PARTITIONS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explained(str(error), config) from error
    return Tokenizer(rounded(model.getvalue()))


def run_train_tokenizer(settings: TrainTokenizer) -> None:
    """The verb `train-tokenizer`: cleaned text → a tokenizer folder.

    Raises:
        JaneoxError: an input is missing or unreadable, or the training cannot be done (see `train_tokenizer`).
    """
    folder = settings.out / "tokenizer"
    tokenizer = train_tokenizer(_read(settings.input or (settings.out / "corpus",)), settings.tokenizer)
    others = {str(path): Tokenizer.load(path) for path in settings.compare}
    groups = sampled(_grouped(settings.input or (settings.out / "corpus",)))
    rows = {name: measured(one, groups) for name, one in ({str(folder): tokenizer} | others).items()}
    words = vocabulary(tokenizer)
    with new_folder(folder) as new:
        tokenizer.save(new)
        report = {"texts": rows[str(folder)], "vocabulary": words}
        (new / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    Console().print(figures_table(rows))
    print("longest pieces:", " ".join(words["longest"]))
    print("rarest pieces:", " ".join(words["rarest"]))
    print("pieces by length:", ", ".join(f"{length}: {count:,}" for length, count in words["lengths"].items()))
    print(f"{folder}: {tokenizer.vocab_size:,} pieces, fingerprint {tokenizer.fingerprint}")


def sample_lines(texts: Iterable[str], sample_chars: int, seed: int) -> list[str]:
    """A uniform sample of the non-empty lines, about `sample_chars` characters in all, in the order of the texts.

    Each line draws a number and those with the smallest stay, so a corpus of any size is read once, holding no more
    than the sample. Lines above 1,000 characters are cut there.
    """
    draw = random.Random(seed).random
    kept: list[tuple[float, int, str]] = []  # a heap with the largest number on top: (-number, -index, line)
    size = 0
    for index, line in enumerate(_lines(texts)):
        heapq.heappush(kept, (-draw(), -index, line))
        size += len(line)
        while size - len(kept[0][2]) >= sample_chars:
            size -= len(heapq.heappop(kept)[2])
    return [line for _, _, line in sorted(kept, key=lambda entry: -entry[1])]


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), LONGEST_LINE):
                yield line[start : start + LONGEST_LINE]


def _prepared(line: str) -> bytes:
    """The line as sentencepiece is to see it, with breaks after the spaces that no piece may run over."""
    line = _SPACE_BEFORE_JAPANESE.sub(" " + BREAK, line.replace(BREAK, ""))
    return line.encode("utf-8", "replace")


def rounded(model: bytes) -> bytes:
    """The model with the scores of its ordinary pieces rounded, so that sums of them are exact in float32."""
    pieces = read_model(model).pieces
    scores = [round(p.score * SCORE_STEPS) / SCORE_STEPS if p.type is PieceType.NORMAL else p.score for p in pieces]
    return with_scores(model, pieces, scores)


def _explained(error: str, config: TokenizerConfig) -> JaneoxError:
    """sentencepiece's complaint in the words of our settings."""
    if match := re.search(r"value <= (\d+)", error):
        return JaneoxError(
            f"tokenizer.vocab_size = {config.vocab_size} is more than this text can fill: "
            f"use at most {match[1]}, or more text"
        )
    if match := re.search(r"required_chars\. \d+ vs (\d+)", error):
        return JaneoxError(
            f"tokenizer.vocab_size = {config.vocab_size} is too small: the special and byte pieces and the single "
            f"characters alone are {match[1]}; raise it, or lower tokenizer.character_coverage = "
            f"{config.character_coverage}"
        )
    return JaneoxError(f"sentencepiece cannot train on this text: {error}")


def _grouped(inputs: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """(group, text): both splits of each source of cleaned folders, and each file."""
    for path in inputs:
        if path.is_file():
            yield from ((path.name, document.text) for document in read_documents(path, path.name, BadRows()))
        else:
            for split in SPLITS:
                yield from ((f"{split} {document.source}", document.text) for document in cleaned(path, split))


def _read(inputs: Iterable[Path]) -> Iterator[str]:
    """Texts of cleaned corpus folders (their train split) and of corpus files in any format that is read."""
    bad_rows = BadRows()
    with progress("reading", unit="characters") as bar:
        for path in inputs:
            for document in read_documents(path, path.name, bad_rows) if path.is_file() else cleaned(path, "train"):
                bar.advance(len(document.text))
                yield document.text
    if bad_rows.count:
        print(f"{bad_rows.count} malformed rows were left out, the first: {bad_rows.first[0]}", file=sys.stderr)
