"""Encoding, decoding, streaming and training; sentencepiece itself is the oracle."""

import io
import itertools
import json
import pickle
import random
import sys
from dataclasses import replace

import numpy
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SMALL
from hard_strings import HARD_STRINGS, generated_lines
from janeox.errors import JaneoxError
from janeox.settings.tokenizer import TrainTokenizer
from janeox.tokenizer import StreamDecoder, Tokenizer
from janeox.tokenizer.model_file import PieceType
from janeox.tokenizer.train import LONGEST_LINE, run_train_tokenizer, sample_lines, train_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "<s>", "</s>", "[CLS]", "[SEP]", "[MASK]"]
LINES = HARD_STRINGS + generated_lines(500, seed=1)


@pytest.fixture(scope="session")
def oracle(tokenizer):
    return sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    decoder = StreamDecoder(tokenizer)
    return "".join(map(decoder.push, ids)) + decoder.flush()


def random_ids(vocab_size: int, first_byte: int, count: int, seed: int) -> list[list[int]]:
    """Lists of ids with many bytes among them, whole and broken characters."""
    choose = random.Random(seed)
    kanji, emoji = [[first_byte + byte for byte in text.encode()] for text in "鬱😀"]
    lists = []
    for _ in range(count):
        ids: list[int] = []
        for _ in range(choose.randrange(10)):
            any_byte = first_byte + choose.randrange(256)
            rare_byte = first_byte + choose.choice([0xC0, 0xE0, 0xED, 0xA0, 0xF0, 0xF4, 0x90, 0xEF, 0xBF, 0xBD])
            run = choose.choice([kanji, emoji])
            ids += choose.choice([[choose.randrange(vocab_size)], [any_byte], [rare_byte], run, run[:-1], run[1:]])
        lists.append(ids)
    return lists


class TestEncode:
    def test_ids_and_pieces_are_sentencepieces(self, tokenizer, oracle):
        for line in LINES:
            assert tokenizer.encode(line) == oracle.encode(line)
            assert tokenizer.tokenize(line) == oracle.encode(line, out_type=str)

    def test_examples_of_the_model_card(self, tokenizer):
        assert not tokenizer.tokenize("吾輩は猫である")[0].startswith("▁")
        pieces = tokenizer.tokenize("  吾輩は  猫である   ")
        assert [piece for piece in pieces if "▁" in piece] == ["▁"] * 7
        assert pieces[:2] == ["▁", "▁"] and pieces[-3:] == ["▁", "▁", "▁"]
        text = "გამარჯობა  吾輩は  猫である   "
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.decode([*tokenizer.encode(text), tokenizer.eos_token_id], special=True) == text + "</s>"

    def test_no_text_becomes_a_control_or_byte_piece(self, tokenizer):
        hidden = [piece.text for piece in tokenizer.file.pieces if piece.type is not PieceType.NORMAL]
        controls = {
            id for id, p in enumerate(tokenizer.file.pieces) if p.type in (PieceType.CONTROL, PieceType.UNKNOWN)
        }
        for text in [*hidden, "".join(hidden), "a".join(hidden)]:
            ids = tokenizer.encode(text)
            assert not controls & set(ids)
            assert tokenizer.decode(ids) == text

    def test_special_asks_for_control_ids(self, tokenizer):
        assert tokenizer.encode("<s>猫</s>", special=True) == [2, *tokenizer.encode("猫"), 3]
        assert tokenizer.encode("[PAD][SEP]<0x41>", special=True)[:2] == [0, 5]
        assert tokenizer.encode("猫 である", special=True) == tokenizer.encode("猫 である")
        assert tokenizer.encode("", special=True) == []

    def test_surrogates_join_or_become_replacement_characters(self, tokenizer):
        assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")
        assert tokenizer.decode(tokenizer.encode("a\ud800b\udc00")) == "a\ufffdb\ufffd"

    def test_batch_equals_one_by_one(self, tokenizer):
        texts = [*LINES, "\ud83d\ude00"]
        expected = [tokenizer.encode(text) for text in texts]
        assert tokenizer.batch(iter(texts)) == tokenizer.batch(texts, threads=2) == expected
        assert tokenizer.batch([]) == []

    def test_arrays_are_the_ids_end_to_end(self, tokenizer):
        expected = [tokenizer.encode(text) for text in LINES]
        for threads in (1, 2):
            ids, lengths = tokenizer.arrays(LINES, threads=threads)
            assert (ids.dtype, lengths.dtype) == (numpy.uint16, numpy.int64)
            assert ids.tolist() == list(itertools.chain(*expected)) and lengths.tolist() == list(map(len, expected))
        assert [len(array) for array in tokenizer.arrays([])] == [0, 0]

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(text=st.text(max_size=60) | st.text("鬱猫a \n▁😀\ud83d\ude00", max_size=20))
    def test_offsets_spell_the_pieces_and_cover_the_text(self, tokenizer, text):
        ids, spans = tokenizer.encode_with_offsets(text)
        assert ids == tokenizer.encode(text)
        end = 0
        for id, (start, stop) in zip(ids, spans, strict=True):
            assert start <= end <= stop and start < stop
            end = stop
            if tokenizer.file.pieces[id].type is PieceType.NORMAL:
                assert (
                    text[start:stop].replace(" ", "▁").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
                    == tokenizer.file.pieces[id].text
                )
        assert end == len(text)

    def test_a_newline_is_one_token(self, tokenizer):
        assert len(tokenizer.encode("\n")) == 1

    def test_long_text(self, tokenizer, oracle):
        text = "吾輩は猫である。\n" * 20_000
        ids = tokenizer.encode(text)
        assert ids == oracle.encode(text)
        assert tokenizer.decode(ids) == text


class TestDecode:
    @pytest.mark.parametrize("text", [text for text in HARD_STRINGS if "▁" not in text])
    def test_round_trip(self, tokenizer, text):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert streamed(tokenizer, ids) == text

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(text=st.text(max_size=60))
    def test_round_trip_of_any_text(self, tokenizer, oracle, text):
        ids = tokenizer.encode(text)
        assert ids == oracle.encode(text)
        assert tokenizer.decode(ids) == streamed(tokenizer, ids) == text.replace("▁", " ")

    def test_any_ids_as_sentencepiece_and_streamed(self, tokenizer, oracle):
        first_byte = oracle.piece_to_id("<0x00>")
        for ids in random_ids(len(tokenizer), first_byte, 3000, seed=2):
            assert tokenizer.decode(ids) == oracle.decode(ids)
            assert streamed(tokenizer, ids) == oracle.decode(ids)

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(data=st.binary(max_size=24))
    def test_any_bytes_streamed(self, tokenizer, oracle, data):
        first_byte = oracle.piece_to_id("<0x00>")
        ids = [first_byte + byte for byte in data]
        assert streamed(tokenizer, ids) == oracle.decode(ids)

    def test_parts_are_whole_characters_as_soon_as_they_are_complete(self, tokenizer):
        decoder = StreamDecoder(tokenizer)
        first_byte = tokenizer.processor.piece_to_id("<0x00>")
        parts = [decoder.push(first_byte + byte) for byte in "é鬱😀".encode()]
        assert parts == ["", "é", "", "", "鬱", "", "", "", "😀"]
        assert decoder.flush() == ""
        assert [decoder.push(first_byte + 0xE3), decoder.push(tokenizer.eos_token_id), decoder.flush()] == ["", "�", ""]

    def test_work_and_memory_per_id_are_constant(self, tokenizer):
        """Counted, not timed: each id takes as many calls after any number of ids, and as little is held."""
        once = tokenizer.encode("鬱蒼とした森で𠮟る👨‍👩‍👧‍👦と</s>")
        decoder, work = StreamDecoder(tokenizer), []
        for id in once * 200:
            calls: list[str] = []
            sys.setprofile(lambda _frame, event, _argument, calls=calls: calls.append(event))
            decoder.push(id)
            sys.setprofile(None)
            work.append(len(calls))
            assert len(decoder._bytes) <= 3
        assert work == work[: len(once)] * 200

    def test_control_pieces_are_dropped_or_shown(self, tokenizer):
        ids = [2, *tokenizer.encode("猫 "), 3, 0]
        assert tokenizer.decode(ids) == streamed(tokenizer, ids) == "猫 "
        assert tokenizer.decode(ids, special=True) == "<s>猫 </s>[PAD]"

    def test_numpy_ids(self, tokenizer):
        assert tokenizer.decode(numpy.array(tokenizer.encode("猫である"), dtype=numpy.uint16)) == "猫である"

    @pytest.mark.parametrize("id", [-1, 2000, 10**12])
    def test_an_id_outside_the_vocabulary_is_named(self, tokenizer, id):
        for call in (lambda: tokenizer.decode([5, id]), lambda: StreamDecoder(tokenizer).push(id)):
            with pytest.raises(JaneoxError, match=rf"id {id} is not in the vocabulary of 2,000"):
                call()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"remove_extra_whitespaces": False},
        {"add_dummy_prefix": False},
        {"byte_fallback": False},
        {"user_defined_symbols": ["<NL>"], "unk_surface": " ?? "},
    ],
)
def test_streaming_of_models_by_other_makers(works, options):
    text = "\n".join(works[:10]).replace("。", "。 ")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.split("\n")),
        model_writer=model,
        minloglevel=2,
        num_threads=2,
        **(
            {"vocab_size": 2000, "character_coverage": 0.98, "byte_fallback": True, "hard_vocab_limit": False} | options
        ),
    )
    tokenizer = Tokenizer(model.getvalue())
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id) == (None, 0, 1)
    space = tokenizer.processor.piece_to_id("▁")
    for ids in random_ids(len(tokenizer), 3, 500, seed=3):
        for start in ([], [space], [space, space], [1, space], [0, space]):
            assert streamed(tokenizer, start + ids) == tokenizer.processor.decode(start + ids)


class TestFile:
    def test_properties(self, tokenizer):
        assert len(tokenizer) == tokenizer.vocab_size == tokenizer.processor.vocab_size() == 2000
        ids = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert ids == (0, 1, 2, 3)
        assert [piece.text for piece in tokenizer.file.pieces[:7]] == SPECIAL

    def test_our_reading_of_the_file_is_sentencepieces(self, tokenizer, oracle):
        for id, piece in enumerate(tokenizer.file.pieces):
            assert (piece.text, piece.score) == (oracle.id_to_piece(id), oracle.get_score(id))
            assert (piece.type is PieceType.BYTE) == oracle.is_byte(id)
            assert (piece.type is PieceType.CONTROL) == oracle.is_control(id)
        assert tokenizer.file.byte_fallback
        assert not (tokenizer.file.add_dummy_prefix or tokenizer.file.remove_extra_whitespaces)

    def test_load(self, tokenizer, tokenizer_folder, tmp_path):
        (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
        for path in (tokenizer_folder, str(tokenizer_folder / "spiece.model"), tmp_path):
            loaded = Tokenizer.load(path)
            assert loaded.fingerprint == tokenizer.fingerprint
            assert loaded.encode("猫である") == tokenizer.encode("猫である")
        assert len(tokenizer.fingerprint) == 16

    def test_pickle(self, tokenizer):
        assert pickle.loads(pickle.dumps(tokenizer)).encode("猫である") == tokenizer.encode("猫である")

    def test_missing(self, tmp_path):
        with pytest.raises(JaneoxError, match=r"no spiece\.model or tokenizer\.model"):
            Tokenizer.load(tmp_path)
        with pytest.raises(JaneoxError, match=r"gone\.model: cannot be read"):
            Tokenizer.load(tmp_path / "gone.model")

    def test_damaged(self, tokenizer, tmp_path):
        file = tmp_path / "spiece.model"
        cuts = [tokenizer.model[:end] for end in range(0, len(tokenizer.model), 997)]
        others = [b"version https://git-lfs.github.com/spec/v1\n", b"{}", bytes(1000), random.Random(0).randbytes(5000)]
        for data in [*cuts, tokenizer.model[:-1], *others]:
            file.write_bytes(data)
            with pytest.raises(JaneoxError, match=r"spiece\.model: damaged, or not a sentencepiece model"):
                Tokenizer.load(tmp_path)


class TestTrain:
    def test_same_input_same_bytes(self, tokenizer, works):
        assert train_tokenizer(iter(works), SMALL).model == tokenizer.model

    def test_what_makes_other_libraries_agree(self, tokenizer):
        normal = [piece for piece in tokenizer.file.pieces if piece.type is PieceType.NORMAL]
        assert all(piece.score * 64 % 1 == 0 for piece in normal)
        assert {*map(chr, range(0x21, 0x7F)), "▁"} <= {piece.text for piece in normal}
        assert all(piece.text[1:].isascii() for piece in normal if piece.text.startswith("▁"))

    def test_sample(self):
        texts = [f"{n:04d}" + "あ" * 16 + "\n\n" for n in range(1000)]
        sample = sample_lines(texts, 2000, seed=0)
        assert sum(map(len, sample)) == 2000
        assert sample == sorted(sample) == sample_lines(texts, 2000, seed=0) != sample_lines(texts, 2000, seed=1)
        assert max(sample) > "0900" and min(sample) < "0100"
        assert sample_lines(texts, 10**9, seed=0) == [text.strip() for text in texts]
        assert sample_lines(["あ" * (2 * LONGEST_LINE + 1)], 10**9, seed=0)[2] == "あ"

    def test_no_text(self):
        for texts in ([], ["", "\n\n"]):
            with pytest.raises(JaneoxError, match="no text to train a tokenizer on"):
                train_tokenizer(texts, SMALL)

    def test_vocabulary_too_large_names_the_limit(self, works):
        config = replace(SMALL, vocab_size=100_000)
        with pytest.raises(
            JaneoxError, match=r"tokenizer\.vocab_size = 100000 is more than .* use at most \d+"
        ) as error:
            train_tokenizer(works[:3], config)
        limit = int(str(error.value).split("use at most ")[1].split(",")[0])
        assert len(train_tokenizer(works[:3], replace(config, vocab_size=limit))) == limit

    def test_vocabulary_too_small_names_the_need(self, works):
        with pytest.raises(JaneoxError, match=r"tokenizer\.vocab_size = 300 is too small: .* alone are \d+"):
            train_tokenizer(works[:3], replace(SMALL, vocab_size=300))

    @pytest.mark.parametrize("coverage", [0.97, 1.01])
    def test_coverage_out_of_range(self, works, coverage):
        with pytest.raises(JaneoxError, match=rf"tokenizer\.character_coverage = {coverage}: .* between 0\.98 and 1"):
            train_tokenizer(works, replace(SMALL, character_coverage=coverage))

    def test_verb(self, works, tmp_path, capfd):
        (tmp_path / "a.txt").write_text("\n".join(works[:4]), encoding="utf-8")
        settings = TrainTokenizer(tmp_path / "out", (tmp_path / "a.txt",), replace(SMALL, vocab_size=1500))
        run_train_tokenizer(settings)
        assert len(Tokenizer.load(tmp_path / "out" / "tokenizer")) == 1500
        output = capfd.readouterr()
        assert "longest pieces: " in output.out and "a.txt" in output.out
        assert output.err == ""
        report = json.loads((tmp_path / "out" / "tokenizer" / "report.json").read_text(encoding="utf-8"))
        assert report["texts"]["a.txt"]["characters"] > 1000
        compared = replace(settings, compare=(tmp_path / "out" / "tokenizer",))
        run_train_tokenizer(compared)
        assert json.loads((tmp_path / "out" / "tokenizer" / "report.json").read_text(encoding="utf-8")) == report

    def test_verb_with_bad_input(self, tmp_path):
        bad = tmp_path / "bad.txt"
        bad.write_bytes("猫である".encode("euc-jp"))
        cases = [
            ((), "out/corpus: no such folder; make"),
            ((tmp_path / "no",), "no: no such"),
            ((bad,), "neither UTF-8"),
        ]
        for inputs, message in cases:
            with pytest.raises(JaneoxError, match=message):
                run_train_tokenizer(TrainTokenizer(tmp_path / "out", inputs, SMALL))
            assert not (tmp_path / "out").exists()
