"""The figures of a tokenizer against counts made by hand, and its keys for GGUF."""

import io

import gguf
import pytest
import sentencepiece

from janeox.errors import JaneoxError
from janeox.tokenizer import Tokenizer
from janeox.tokenizer.gguf import gguf_keys
from janeox.tokenizer.report import SAMPLE, measured, sampled, vocabulary


def test_figures(tokenizer):
    row = measured(tokenizer, {"a": ["鬱😀a", "猫"]})["a"]
    assert (row["characters"], row["bytes"], row["tokens"]) == (4, 11, 9)
    assert (row["coverage"], row["byte_rate"]) == (0.5, 7 / 9)
    assert measured(tokenizer, {"none": []})["none"]["coverage"] == 1


def test_vocabulary(tokenizer):
    words = vocabulary(tokenizer)
    assert sum(words["lengths"].values()) == 2000 - 7 - 256
    assert len(words["longest"][0]) == max(map(int, words["lengths"]))
    worst = min(tokenizer.file.pieces[7 + 256 :], key=lambda piece: piece.score).score
    assert tokenizer.processor.get_score(tokenizer.processor.piece_to_id(words["rarest"][0])) == worst


def test_sample_of_each_group():
    groups = sampled([("a", "x" * SAMPLE), ("a", "y"), ("b", "z")])
    assert groups == {"a": ["x" * SAMPLE], "b": ["z"]}


def test_gguf_keys(tokenizer):
    keys = gguf_keys(tokenizer)
    assert keys["tokenizer.ggml.model"] == "t5" and keys["tokenizer.ggml.tokens"][3] == b"</s>"
    assert keys["tokenizer.ggml.token_type"][:8] == [3, 2, 3, 3, 3, 3, 3, 6]
    assert [keys[f"tokenizer.ggml.{role}_token_id"] for role in ("padding", "unknown", "bos", "eos")] == [0, 1, 2, 3]
    assert keys["tokenizer.ggml.add_space_prefix"] is keys["tokenizer.ggml.remove_extra_whitespaces"] is False
    assert "tokenizer.ggml.precompiled_charsmap" not in keys


def test_gguf_file(tokenizer, tmp_path):
    """The keys, written and read back by the format's own package."""
    writer = gguf.GGUFWriter(tmp_path / "tokenizer.gguf", "gptneox")
    add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string, list: writer.add_array}
    keys = gguf_keys(tokenizer)
    for key, value in keys.items():
        add[type(value)](key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    fields = gguf.GGUFReader(tmp_path / "tokenizer.gguf").fields
    for key, value in keys.items():
        if key.endswith("tokens"):
            value = [piece.decode() for piece in value]
        assert fields[key].contents() == value, key


def test_gguf_keys_of_other_models(works):
    models = {}
    for kind in ("unigram", "char"):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(works[0].split("\n")), model_writer=(model := io.BytesIO()), model_type=kind,
            vocab_size=1000, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
        models[kind] = Tokenizer(model.getvalue())
    keys = gguf_keys(models["unigram"])
    assert keys["tokenizer.ggml.precompiled_charsmap"] == models["unigram"].file.charsmap
    assert keys["tokenizer.ggml.add_space_prefix"] and "tokenizer.ggml.padding_token_id" not in keys
    with pytest.raises(JaneoxError, match="only unigram"):
        gguf_keys(models["char"])
