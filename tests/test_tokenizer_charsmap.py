"""Normalisation rules as `tokenizers` steps, against sentencepiece's own normalisation; and what no file can mend."""

import io
import json
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SMALL
from hard_strings import HARD_STRINGS, generated_lines
from janeox.errors import JaneoxError
from janeox.tokenizer import Tokenizer
from janeox.tokenizer.charsmap import APART, ESCAPE, GLUE, read_rules, steps
from janeox.tokenizer.export import tokenizer_json
from janeox.tokenizer.model_file import with_scores
from janeox.tokenizer.train import train_tokenizer

MARKS = "か\u3099は\u309aｶﾞﾊﾟ①½\ufe0fÅeE\u0301\u0307\u0323\u0308\u0304"
MARKS += "각\u11a8ㄱㅏ\r\n\t\0\x01～㋿▁ 　ﷺ\U0001611e\U0001611f\U00016129"
MARKS += ESCAPE + GLUE + APART


@pytest.fixture(scope="session", params=["nfkc", "nmt_nfkc"])
def both(request, works):
    """(a tokenizer with these rules, the exported one)"""
    trained = train_tokenizer(works[:40], replace(SMALL, vocab_size=1900, normalization=request.param))
    return trained, tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(trained)))


def test_every_character_and_a_sample_of_the_keys(both):
    trained, exported = both
    keys = [key for key in read_rules(trained.file.charsmap) if len(key) > 1]
    syllables = [key for key in keys if "\u1100" <= key[0] < "\u1200" or key[0] >= "\uac00"]
    others = sorted(set(keys).difference(syllables))
    characters = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    tries = characters[:0x3400] + characters[0xF000:0x12000] + random.Random(0).sample(characters, 5000)
    tries += random.Random(0).sample(sorted(syllables), 2000) + random.Random(0).sample(others, 3000)
    for start in range(0, len(tries), 100):  # 猫 is part of no rule
        text = "猫".join(tries[start : start + 100])
        assert exported.normalizer.normalize_str(text) == trained.processor.normalize(text), ascii(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.text(MARKS, max_size=14))
def test_marks_in_any_order(both, text):
    trained, exported = both
    assert exported.normalizer.normalize_str(text) == trained.processor.normalize(text)


def test_ids_and_text(both):
    trained, exported = both
    for line in HARD_STRINGS + generated_lines(600, seed=5):
        ids = trained.encode(line)
        assert exported.encode(line, add_special_tokens=False).ids == ids, line
        assert exported.decode(ids) == trained.decode(ids), line


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.text(MARKS, max_size=14) | st.text(max_size=20))
def test_offsets(both, text):
    """Each piece has characters of the text: those of the piece before, if they are spelled together, or later ones."""
    trained, _ = both
    ids, spans = trained.encode_with_offsets(text)
    assert ids == trained.encode(text)
    last = (0, 0)
    for span in spans:
        assert span[0] < span[1] <= len(text) and (span == last or span[0] >= last[1])
        last = span


KEPT = ("<NL>", "<NL><NL>", "猫で", "ｶﾞ", "😀", "①", "か", "がん\u3099", ESCAPE + "x", "である")


def test_user_defined_pieces_are_kept_from_the_rules(works):
    trained = train_tokenizer(
        works[:40], replace(SMALL, vocab_size=1900, normalization="nmt_nfkc", user_defined_symbols=KEPT)
    )
    exported = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(trained)))
    choose = random.Random(0)
    mixed = ["".join(choose.choices([*KEPT, *MARKS, "\u0338"], k=choose.randrange(14))) for _ in range(1500)]
    for line in [*mixed, *HARD_STRINGS]:
        ids = trained.encode(line)
        assert exported.normalizer.normalize_str(line) == trained.processor.normalize(line), ascii(line)
        assert exported.encode(line, add_special_tokens=False).ids == ids, ascii(line)
    assert trained.tokenize("①ｶﾞ２") == ["①", "ｶﾞ", "2"]


def test_user_defined_pieces_that_no_step_keeps(both, works):
    charsmap = both[0].file.charsmap
    with pytest.raises(ValueError, match="begins where a normalisation rule may go on"):
        steps(charsmap, ("\u3099猫",))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(works[0].split("\n")), model_writer=model, vocab_size=1000, hard_vocab_limit=False,
        user_defined_symbols=["a  b"], minloglevel=2,
    )  # fmt: skip
    with pytest.raises(JaneoxError, match="tokenizer: cannot be exported: a user-defined piece holds two spaces"):
        tokenizer_json(Tokenizer(model.getvalue()))


def test_damaged(both):
    charsmap = both[0].file.charsmap
    for data in (b"", b"\1", charsmap[:1000], b"\xff" * 100, bytes(100)):
        with pytest.raises(ValueError, match="damaged normalisation rules"):
            steps(data)


class TestOutOfReach:
    """Where a consumer's own code decides; docs/tokenizer.md tells of each."""

    def test_an_invalid_byte_spoils_its_whole_run(self, tokenizer):
        exported = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(tokenizer)))
        byte = partial(int.__add__, tokenizer.processor.piece_to_id("<0x00>"))
        ids = [byte(0xE3), byte(0x41)]
        assert (tokenizer.decode(ids), exported.decode(ids)) == ("\ufffdA", "\ufffd\ufffd")

    def test_unrounded_scores_leave_ties_to_the_width_of_a_sum(self, tokenizer):
        """sentencepiece adds in float32, `tokenizers` in float64: of two cuts with equal sums each may take another."""
        cat, ma, mama, text = "猫", "ま", "まま", "猫ままま"
        choose = np.random.default_rng(0)
        draws = choose.uniform((-9, -6, -9), (-8, -5, -8), (1000, 3)).astype(np.float32)
        p, a, b = next(row for row in draws if (row[0] + row[2]) + row[1] > (row[0] + row[1]) + row[2])

        def cuts(steps: float) -> list[list[str]]:
            wanted = {cat: p, ma: a, mama: b}
            pieces = tokenizer.file.pieces
            scores = [round(float(wanted.get(piece.text, piece.score)) * steps) / steps for piece in pieces]
            made = Tokenizer(with_scores(tokenizer.model, pieces, scores))
            exported = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(made)))
            return [made.tokenize(text), exported.encode(text, add_special_tokens=False).tokens]

        assert cuts(2.0**40) == [[cat, mama, ma], [cat, ma, mama]]
        assert cuts(64) == [[cat, ma, mama]] * 2
