"""Parquet, ISA-L, and mC4 rows as datatrove's own reader has them."""

import gzip
import json
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
from janeox.corpus.read import BadRows, read_documents
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
