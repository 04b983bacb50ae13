"""What the choices that make every library agree cost: tokens, and bits by a unigram model, per byte of held-out text.

    python -m benchmarks.tokenizer_recipe TRAIN … --valid FILE … [--megabytes 12] [--vocab-size 16000]

TRAIN and FILE are corpus files in any format that janeox reads; training lines are taken from the files in turn. Rows:
the model card's options alone, the same with scores rounded, and what `janeox train-tokenizer` makes of the same lines
(also printable ASCII in the vocabulary, and no piece that joins a space to what is not ASCII). All with identity
normalisation. Bits are those of a model that knows each piece's share of FILE's pieces and nothing else.
"""

import argparse
import io
import math
from collections import Counter
from pathlib import Path

import sentencepiece

from benchmarks.machine import header
from benchmarks.tokenizer_agreement import read_lines
from benchmarks.tokenizer_training import first_lines
from janeox.config import TokenizerConfig
from janeox.tokenizer import Tokenizer
from janeox.tokenizer.train import PARTITIONS, rounded, sample_lines, train_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="TRAIN")
    parser.add_argument("--valid", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--megabytes", type=float, default=12)
    parser.add_argument("--vocab-size", type=int, default=16_000)
    arguments = parser.parse_args()
    config = TokenizerConfig(arguments.vocab_size, normalization="identity", sample_chars=10**12)
    lines = first_lines(arguments.files, arguments.megabytes * 1e6)
    card = by_the_card(lines, config)
    recipes = {
        "the card's options": Tokenizer(card),
        "the same, scores rounded": Tokenizer(rounded(card)),
        "janeox": train_tokenizer(lines, config),
    }
    print(header())
    print(f"{arguments.vocab_size:,} pieces of {arguments.megabytes:g} MB")
    print(f"{'':<28}{'recipe':<28}{'tokens/byte':>12}{'':>8}{'bits/byte':>11}{'':>8}")
    for file in arguments.valid:
        texts = list(read_lines(file))
        first: tuple[float, ...] = ()
        for name, tokenizer in recipes.items():
            found = figures(tokenizer, texts)
            first = first or found
            changes = [f"{100 * (a / b - 1):+.2f} %" for a, b in zip(found, first, strict=True)]
            print(f"{file.name[:26]:<28}{name:<28}{found[0]:>12.4f}{changes[0]:>8}{found[1]:>11.4f}{changes[1]:>8}")


def by_the_card(lines: list[str], config: TokenizerConfig) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line.encode("utf-8", "replace") for line in sample_lines(lines, config.sample_chars, 0)),
        model_writer=model,
        model_type="unigram",
        vocab_size=config.vocab_size,
        character_coverage=config.character_coverage,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        num_threads=PARTITIONS,
        minloglevel=2,
    )
    return model.getvalue()


def figures(tokenizer: Tokenizer, texts: list[str]) -> tuple[float, float]:
    """(tokens, bits) per byte"""
    counts = Counter(id for ids in tokenizer.batch(texts) for id in ids)
    tokens, size = sum(counts.values()), sum(len(text.encode()) for text in texts)
    bits = -sum(count * math.log2(count / tokens) for count in counts.values())
    return tokens / size, bits / size


if __name__ == "__main__":
    main()
