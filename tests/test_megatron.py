"""Token files of other trainers, written here by struct as their builders lay them out, and read back the same way."""

import itertools
import struct
from array import array

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from janeox.data.megatron import import_shards
from janeox.data.shards import TokenFile
from janeox.errors import JaneoxError
from janeox.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    import sentencepiece

    folder = tmp_path_factory.mktemp("tokenizer")
    lines = [f"今日は{number}月の天気のよい日である。" for number in range(300)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "spiece"), vocab_size=330, byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return Tokenizer.load(folder)


def write(stem, documents, code, shift=0):
    """A builder of Megatron's: `documents` are lists of sequences of ids."""
    letter, width = {4: ("i", 4), 8: ("H", 2)}[code]
    sequences = [sequence for document in documents for sequence in document]
    starts = [0]
    for document in documents:
        starts.append(starts[-1] + len(document))
    pointers = [width * sum(map(len, sequences[:place])) for place in range(len(sequences))]
    with open(f"{stem}.idx", "wb") as file:
        file.write(b"MMIDIDX\0\0" + struct.pack("<QB", 1, code) + struct.pack("<QQ", len(sequences), len(starts)))
        file.write(struct.pack(f"<{len(sequences)}i", *map(len, sequences)))
        file.write(struct.pack(f"<{len(sequences)}q", *(pointer + shift for pointer in pointers)))
        file.write(struct.pack(f"<{len(starts)}q", *starts))
    with open(f"{stem}.bin", "wb") as file:
        for sequence in sequences:
            array(letter, sequence).tofile(file)


def read(stem):
    """Documents of a pair, by struct alone."""
    raw, data = (stem.with_name(stem.name + suffix).read_bytes() for suffix in (".idx", ".bin"))
    code, count, num_starts = struct.unpack_from("<BQQ", raw, 17)
    letter, width = {4: ("i", 4), 8: ("H", 2)}[code]
    lengths = struct.unpack_from(f"<{count}i", raw, 34)
    pointers = struct.unpack_from(f"<{count}q", raw, 34 + 4 * count)
    starts = struct.unpack_from(f"<{num_starts}q", raw, 34 + 12 * count)
    sequences = [struct.unpack_from(f"<{n}{letter}", data, at) for n, at in zip(lengths, pointers, strict=True)]
    return [[id for part in sequences[a:b] for id in part] for a, b in itertools.pairwise(starts)], width


ids = st.lists(st.integers(4, 300), max_size=6)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(ids, max_size=3), min_size=1, max_size=6), st.sampled_from([4, 8]), st.booleans())
def test_documents_come_back_whole_and_end(tmp_path_factory, tokenizer, wanted, code, ended):
    folder = tmp_path_factory.mktemp("pair")
    eos = tokenizer.eos_token_id
    if ended:
        wanted = [[*document, [eos]] for document in wanted]
    write(folder / "web.v1_text_document", wanted, code)
    shards = import_shards([folder / "web.v1_text_document.bin"], tokenizer, folder / "shards")
    joined = [[id for sequence in document for id in sequence] for document in wanted]
    found, width = read(folder / "shards/train/web.v1_text_document")
    assert found == [document if document[-1:] == [eos] else [*document, eos] for document in joined]
    assert width == 2
    (row,) = shards.files
    texts = [tokenizer.decode(document) for document in joined]
    assert (row.source, row.num_documents, row.num_tokens) == ("web.v1_text_document", len(found), sum(map(len, found)))
    assert (row.num_chars, row.num_bytes) == (sum(map(len, texts)), sum(len(text.encode()) for text in texts))


def test_files_that_cannot_be_imported(tmp_path, tokenizer):
    write(tmp_path / "a", [[[4, 5]], [[tokenizer.vocab_size]]], 4)
    with pytest.raises(JaneoxError, match=r"a\.bin: document 1 holds an id outside the \d+ of .*another tokenizer"):
        import_shards([tmp_path / "a"], tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write(tmp_path / "b", [[[4, 5]], [[6]]], 8, shift=2)
    with pytest.raises(JaneoxError, match=r"b\.idx: its sequences do not follow"):
        TokenFile(tmp_path / "b")
    write(tmp_path / "c", [[[4, 5]], [[6]]], 8)
    raw = bytearray((tmp_path / "c.idx").read_bytes())
    raw[-8:] = struct.pack("<q", 1)
    (tmp_path / "c.idx").write_bytes(raw)
    with pytest.raises(JaneoxError, match=r"c\.idx: its documents do not cover"):
        TokenFile(tmp_path / "c")
    with pytest.raises(JaneoxError, match="different names"):
        import_shards([tmp_path / "a", tmp_path / "a.idx"], tokenizer, tmp_path / "out")


def test_our_shards_are_what_megatron_reads(tmp_path, tokenizer):
    write(tmp_path / "a", [[[4, 5], [6]], [[7]]], 4)
    import_shards([tmp_path / "a"], tokenizer, tmp_path / "out", valid=True)
    again = import_shards([tmp_path / "out/valid/a"], tokenizer, tmp_path / "twice", valid=True)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"twice/valid/a{suffix}").read_bytes() == (tmp_path / f"out/valid/a{suffix}").read_bytes()
    assert again.files[0].split == "valid"
    assert TokenFile(tmp_path / "out/valid/a").starts.tolist() == [0, 1, 2]
