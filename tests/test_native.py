"""The native encoder against sentencepiece: the same ids, whatever the text and whatever the model."""

import io
import os
import pickle
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SMALL
from hard_strings import HARD_STRINGS, generated_lines
from janeox import native
from janeox.tokenizer import encoder
from janeox.tokenizer.encoder import NativeEncoder, NotCovered
from janeox.tokenizer.model_file import PieceType, read_model
from janeox.tokenizer.tokenizer import Tokenizer, _utf8
from janeox.tokenizer.train import train_tokenizer

LINES = [_utf8(line).decode() for line in HARD_STRINGS + generated_lines(2000, seed=7)]
OPTIONS = {
    "sentencepiece's defaults": {},
    "spaces kept": {"remove_extra_whitespaces": False},
    "unknown pieces": {"byte_fallback": False, "add_dummy_prefix": False},
    "trimmed, no rules": {"normalization_rule_name": "identity"},
    "folded case": {"normalization_rule_name": "nmt_nfkc_cf", "byte_fallback": False},
    "pieces of the user": {"user_defined_symbols": ["<NL>", "<NL><NL>", "▁▁", "猫で", "ｶﾞ", " ", "😀"]},
}


def compiler() -> bool:
    return any(map(shutil.which, filter(None, [os.environ.get("CXX"), "c++", "g++", "clang++"])))


needs_library = pytest.mark.skipif(not compiler() and native.library() is None, reason="no compiler here")


def test_the_library_is_built_where_there_is_a_compiler():
    assert native.library() is not None or not compiler(), "not built: install again (pip install --editable .)"


@pytest.fixture(scope="session")
def models(works, tokenizer) -> dict[str, Tokenizer]:
    """Small models of every kind that is covered."""
    found = {"ours": tokenizer}
    for rules in ("nfkc", "nmt_nfkc"):
        found[rules] = train_tokenizer(works[:40], replace(SMALL, normalization=rules, vocab_size=2000))
    lines = "\n".join(works[:10]).replace("。", "。 ").split("\n")
    for name, options in OPTIONS.items():
        model = io.BytesIO()
        common = {"vocab_size": 1500, "character_coverage": 0.98, "byte_fallback": True, "hard_vocab_limit": False}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, minloglevel=2, **(common | options)
        )
        found[name] = Tokenizer(model.getvalue())
    return found


def expect_equal(model: Tokenizer, texts: list[str], threads: int = 1) -> None:
    assert model.native
    ids, lengths = model.native.encode(texts, threads)
    assert ids.dtype == model.native.dtype and lengths.dtype == np.int64 and lengths.sum() == len(ids)
    parts = np.split(ids, np.cumsum(lengths)[:-1])
    for text, part, expected in zip(texts, parts, model.processor.encode(texts), strict=True):
        assert part.tolist() == expected == model.native.one(text), text[:200]


@contextmanager
def alarms(handler: Callable[..., None]) -> Iterator[None]:
    """Within it, `handler` is called by a signal every 5 ms."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@needs_library
class TestSameIds:
    @pytest.mark.parametrize("name", ["ours", "nfkc", "nmt_nfkc", *OPTIONS])
    def test_hard_and_generated_lines(self, models, name):
        expect_equal(models[name], LINES)

    @pytest.mark.parametrize("name", ["ours", "nmt_nfkc"])
    def test_real_text_on_two_threads(self, models, works, name):
        expect_equal(models[name], works, threads=2)
        expect_equal(models[name], "\n".join(works).split("\n"), threads=2)

    @pytest.mark.parametrize("name", ["ours", "nmt_nfkc", "unknown pieces", "pieces of the user"])
    def test_long_texts(self, models, works, name):
        # A megabyte of each kind; the scores of the second pass -100,000 many times.
        mixed = "".join(random.Random(0).choices(LINES, k=20_000))
        texts = [("\n".join(works) * 3)[:350_000], "\ue000鬱" * 170_000, "ー" * 350_000, " " * 100_000 + "猫", mixed]
        expect_equal(models[name], texts, threads=2)

    @settings(max_examples=400, deadline=None, derandomize=True)
    @given(texts=st.lists(st.text(max_size=80), min_size=1, max_size=4), choose=st.randoms())
    def test_any_text(self, models, texts, choose):
        expect_equal(choose.choice(list(models.values())), texts)

    @settings(max_examples=400, deadline=None, derandomize=True)
    @given(text=st.text(alphabet="か\u3099は\u309aｶﾞ▁ 　\n\t\0①ﷺ<NL>猫で😀ーー。Aa\u0301\u200b\ufffd", max_size=60))
    def test_text_full_of_rules(self, models, text):
        for model in models.values():
            expect_equal(model, [text])

    def test_nothing(self, tokenizer):
        encoder = NativeEncoder(tokenizer.file)
        for texts in ([], [""], ["", "猫", ""]):
            ids, lengths = encoder.encode(texts)
            assert lengths.tolist() == [len(tokenizer.processor.encode(text)) for text in texts]
            assert ids.dtype == np.uint16 and len(ids) == sum(lengths)

    def test_texts_are_handed_over_in_portions(self, tokenizer, monkeypatch):
        monkeypatch.setattr(encoder, "PORTION", 50)
        expect_equal(tokenizer, LINES[:300])
        expect_equal(tokenizer, LINES[:300], threads=2)

    @pytest.mark.parametrize("name", ["ours", "nmt_nfkc"])
    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(texts=st.lists(st.text(alphabet="\ud83d\ude00\ud800\udfff猫か\u3099a ", max_size=12), max_size=4))
    def test_surrogates(self, models, name, texts):
        expected = models[name].processor.encode([_utf8(text) for text in texts])
        assert models[name].batch(texts) == expected == list(map(models[name].encode, texts))
        assert models[name].arrays(texts)[0].tolist() == [id for ids in expected for id in ids]

    @pytest.mark.parametrize("threads", [1, 2])
    def test_what_is_no_text_is_an_error(self, tokenizer, threads):
        for texts in ([*LINES, None, *LINES], [b"cat"]):
            for encode in (tokenizer.batch, tokenizer.arrays):
                with pytest.raises(TypeError):
                    encode(texts, threads=threads)
        with pytest.raises(TypeError):
            tokenizer.encode(None)
        expect_equal(tokenizer, LINES[:100], threads)

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
    @pytest.mark.parametrize("threads", [1, 2])
    def test_signals_are_heard_between_portions(self, tokenizer, threads):
        """Handlers run while a batch is encoded, may encode themselves, and end it by raising."""
        heard = []

        def hear(*_):
            heard.append(tokenizer.encode(LINES[10]))
            if len(heard) == 3:  # signals that wait for the end of a call come as one
                raise KeyboardInterrupt

        texts = ["吾輩は猫である。名前はまだ無い。" * 100] * 10_000
        with alarms(hear), pytest.raises(KeyboardInterrupt):
            tokenizer.arrays(texts, threads=threads)
        assert all(ids == tokenizer.processor.encode(LINES[10]) for ids in heard)

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
    @pytest.mark.parametrize("threads", [1, 2])
    def test_a_list_that_is_cut_meanwhile_is_an_error(self, tokenizer, threads):
        texts = ["吾輩は猫である。名前はまだ無い。" * 100 for _ in range(10_000)]
        with alarms(lambda *_: texts.__delitem__(slice(9_000, None))), pytest.raises(IndexError):
            tokenizer.arrays(texts, threads=threads)

    def test_vocabularies_beyond_uint16(self, tokenizer):
        more = [replace(tokenizer.file.pieces[-1], type=PieceType.UNUSED)] * (1 << 16)
        encoder = NativeEncoder(replace(tokenizer.file, pieces=tokenizer.file.pieces + more))
        ids, _ = encoder.encode(["猫である"])
        assert ids.dtype == np.int32 and ids.tolist() == tokenizer.processor.encode("猫である")


class TestTokenizer:
    @pytest.mark.parametrize("threads", [1, 2])
    def test_with_and_without_the_library(self, tokenizer, monkeypatch, threads):
        texts = [*LINES, "\ud83d\ude00", "a\udc00", "\ud83d", "\ude00"]
        found = pickle.loads(pickle.dumps(tokenizer))
        monkeypatch.setattr(encoder, "_library", lambda: None)
        fallback = pickle.loads(pickle.dumps(tokenizer))
        assert fallback.native is None
        monkeypatch.undo()
        assert found.native is not None or not compiler()
        batch = fallback.batch(texts, threads=threads)
        assert found.batch(texts, threads=threads) == batch
        assert [found.encode(text) for text in texts] == [fallback.encode(text) for text in texts] == batch
        for a, b in zip(found.arrays(texts, threads=threads), fallback.arrays(texts, threads=threads), strict=True):
            assert a.dtype == b.dtype and a.tolist() == b.tolist()

    def test_a_library_of_another_version_is_left_alone_and_named(self, monkeypatch, capsys):
        monkeypatch.setattr(native, "VERSION", -1)
        assert native.library.__wrapped__() is None
        assert "not -1, and goes unused" in capsys.readouterr().err


@needs_library
class TestNotCovered:
    def test_reasons(self, tokenizer):
        file = tokenizer.file
        unknown = [piece for piece in file.pieces if piece.type is not PieceType.UNKNOWN]
        no_tilde = [piece for piece in file.pieces if piece.text != "<0x7E>"]
        long = replace(file.pieces[-1], text="ー" * 256, type=PieceType.NORMAL)
        cases = {
            "unigram": replace(file, algorithm=2),
            "spaces belong": replace(file, treat_whitespace_as_suffix=True),
            "no unknown piece": replace(file, pieces=unknown),
            "256 byte": replace(file, pieces=no_tilde),
            "NUL": replace(file, pieces=[*file.pieces, replace(long, text="a\0")]),
            "score": replace(file, pieces=[*file.pieces, replace(long, text="ab", score=float("nan"))]),
            "255 characters": replace(file, pieces=[*file.pieces, long]),
            "64 bytes": replace(
                file, pieces=[*file.pieces, replace(long, text="ー" * 22, type=PieceType.USER_DEFINED)]
            ),
        }
        for reason, uncovered in cases.items():
            with pytest.raises(NotCovered, match=reason):
                NativeEncoder(uncovered)

    def test_damaged_rules(self, models):
        """Whatever the bytes, rules are refused or followed without a crash."""
        file = models["nmt_nfkc"].file
        choose = random.Random(0)
        for end in (0, 3, 4, 1000, 1028, len(file.charsmap) - 1):
            if end:
                with pytest.raises(NotCovered, match="rules"):
                    NativeEncoder(replace(file, charsmap=file.charsmap[:end]))
        for _ in range(30):
            charsmap = bytearray(file.charsmap)
            for _ in range(choose.choice([1, 10, 1000])):
                charsmap[choose.randrange(len(charsmap))] = choose.randrange(256)
            try:
                NativeEncoder(replace(file, charsmap=bytes(charsmap))).encode(LINES[:200])
            except NotCovered:
                continue

    def test_a_model_by_bytes(self, tokenizer):
        assert read_model(tokenizer.model).pieces == tokenizer.file.pieces
        assert NativeEncoder(read_model(tokenizer.model)).encode(["猫"])[0].tolist() == tokenizer.encode("猫")
