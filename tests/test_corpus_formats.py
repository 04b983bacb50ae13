"""Parquet, ISA-L, and mC4 rows as datatrove's own reader has them."""

import bz2
import gzip
import io
import json
import lzma
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from datatrove.pipeline.readers import JsonlReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from janeox.corpus import unpack
from janeox.corpus.document import Document
from janeox.corpus.read import BadRows, read_documents, readable_documents
from janeox.errors import JaneoxError
from runs import ROOT

PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
anything = st.text(st.characters(codec="utf-8"), min_size=1)
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def documents(path: Path) -> list[Document]:
    return list(read_documents(path, "s", BadRows()))


def datatroves(path: Path) -> list[tuple[str, str]]:
    reader = JsonlReader(str(path.parent), glob_pattern=path.name, id_key="url", compression="infer")
    return [(document.text, document.id) for document in reader.run()]


def test_real_mc4_as_datatroves_reader_has_it():
    paths = [*(ROOT / "tests/data/corpus").glob("c4-*"), *(ROOT / "data/mc4").glob("*.gz")]
    for path in paths:
        theirs = datatroves(path)
        assert [(document.text, document.id) for document in documents(path)] == theirs
        assert len(theirs) >= 3


@relaxed
@given(st.lists(anything, max_size=9), st.sampled_from(["", ".gz", ".zst"]), st.booleans())
def test_mc4_as_datatroves_reader_has_it(tmp_path, wanted, packing, escaped):
    rows = [
        json.dumps({"url": f"https://example.org/{n}", "text": t}, ensure_ascii=escaped) for n, t in enumerate(wanted)
    ]
    path = tmp_path / f"x.jsonl{packing}"
    path.write_bytes(PACK[packing]("".join(row + "\n" for row in rows).encode()))
    theirs = datatroves(path)
    assert [(document.text, document.id) for document in documents(path)] == theirs
    assert len(theirs) == len(wanted)


@relaxed
@given(st.lists(st.none() | anything, max_size=9), st.booleans(), st.sampled_from(["snappy", "zstd", "none"]))
def test_parquet_round_trip(tmp_path, wanted, large, compression):
    kind = pa.large_string() if large else pa.string()
    table = pa.table({"url": [f"u{n}" for n in range(len(wanted))], "text": pa.array(wanted, kind)})
    pq.write_table(table, tmp_path / "x.parquet", compression=compression, row_group_size=4)
    steps: list[int] = []
    bad_rows = BadRows()
    found = list(read_documents(tmp_path / "x.parquet", "s", bad_rows, steps.append))
    assert [(d.text, d.id) for d in found] == [(text, f"u{n}") for n, text in enumerate(wanted) if text is not None]
    assert bad_rows.first == [f"x.parquet:{n + 1}: `text` is null" for n, text in enumerate(wanted) if text is None]
    assert sum(steps) == (tmp_path / "x.parquet").stat().st_size


def text_file(texts: list[str]) -> bytes:
    return "\n\n".join(texts).encode()


def rows_file(texts: list[str]) -> bytes:
    return "\n".join(json.dumps({"text": text}) for text in texts).encode()


def dump_file(texts: list[str]) -> bytes:
    pairs = (
        f'{{"index":{{"_id":{number}}}}}\n{json.dumps({"namespace": 0, "text": text})}'
        for number, text in enumerate(texts)
    )
    return "\n".join(pairs).encode()


def parquet_file(texts: list[str]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), sink, row_group_size=50)
    return sink.getvalue()


BREAKABLE = {
    "ja.txt.xz": lambda texts: lzma.compress(text_file(texts), preset=0),
    "c4.json.gz": lambda texts: gzip.compress(rows_file(texts)),
    "old.json.gz": lambda texts: gzip.compress(dump_file(texts)),
    "new.json.bz2": lambda texts: bz2.compress(dump_file(texts)),
    "x.jsonl.zst": lambda texts: zstandard.ZstdCompressor(write_checksum=True).compress(rows_file(texts)),
    "x.parquet": parquet_file,
}


@pytest.mark.parametrize("name", BREAKABLE)
@settings(relaxed, max_examples=40)
@given(st.floats(0, 1), st.none() | st.binary(min_size=1, max_size=9))
def test_what_can_be_read_of_a_broken_file(tmp_path, name, place, garbage):
    """Cut off somewhere, or overwritten there: what was read is counted, the rest reported, and the run goes on."""
    texts = [f"{number}番目の文書。" * (number % 7 + 1) for number in range(300)]
    whole = BREAKABLE[name](texts)
    cut = 9 + int(place * (len(whole) - 11))
    broken = whole[:cut] + (b"" if garbage is None else garbage + whole[cut + len(garbage) :])
    path = tmp_path / name
    path.write_bytes(broken)
    bad_rows = BadRows()
    found = [document.text for document in readable_documents(path, "s", bad_rows)]
    told = bad_rows.first + bad_rows.damaged
    assert all(re.match(rf"{re.escape(name)}:\d+: ", row) for row in told)
    if garbage is None:
        assert found == texts[: len(found)] and len(bad_rows.damaged) == 1
        with pytest.raises(JaneoxError, match=re.escape(name)):
            list(readable_documents(path, "s", BadRows(stop=True)))
    elif name != "x.parquet":  # which has no checksum
        assert found == texts or told


def test_parquet_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["一"] * 999}), path)
    whole = path.read_bytes()
    for size in (4, 50, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(JaneoxError, match=r"x\.parquet.*truncated or damaged"):
            documents(path)
    pq.write_table(pa.table({"body": ["一"], "text": [5]}), path)
    with pytest.raises(JaneoxError, match="no column `text` of strings; its columns are body, text"):
        documents(path)


def test_gzip_without_isa_l(monkeypatch, tmp_path):
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress("一\n\n二".encode()))
    monkeypatch.setattr(unpack, "igzip", None)
    assert [document.text for document in documents(path)] == ["一", "二"]


def test_the_first_bad_row_can_end_the_reading(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\nno\n{"text": "b"}\n')
    with pytest.raises(JaneoxError, match=r"x\.jsonl:2: not JSON"):
        list(read_documents(path, "s", BadRows(stop=True)))
