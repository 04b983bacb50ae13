"""Rows read natively against orjson and the standard library, character by character and byte by byte."""

import json
import re
import threading
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from janeox.corpus import rows
from janeox.corpus.read import FIELDS, BadRows, read_documents
from janeox.corpus.rows import Rows, decode, parse
from janeox.corpus.unpack import unpack
from janeox.native import library
from runs import ROOT

thorough = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["vectors", "no vectors"])
def native(request):
    """Each way in which the library reads."""
    loaded = library()
    if loaded is None:
        pytest.skip("the library is not built here")
    used = loaded.janeox_rows_wide(request.param == "vectors")
    if request.param == "vectors" and not used:
        pytest.skip("the processor lacks the instructions")
    yield
    loaded.janeox_rows_wide(True)


def read(content: bytes) -> list[dict | bytes]:
    return list(Rows(iter([content]), lambda: None, FIELDS))


def wanted(row: bytes) -> dict | None:
    value, _ = parse(row)
    return None if value is None else {name: value[name] for name in value if name in FIELDS}


# Long enough for several rounds of 61 bytes, with everything that ends or breaks one.
piece = st.sampled_from(
    [*'aあ漢é߿ࠀ퟿￿\U00010000😀\x7f\x80 /"\\\n\r\t\b\0', "日本語の長い文。" * 5, "ASCII, " * 9, "\ue000"]
)
text = st.lists(piece, max_size=80).map("".join) | st.text(st.characters(codec="utf-8"))
name = st.sampled_from([*FIELDS, "title", "te", "textx"]) | text
leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
value = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(name, inner, max_size=3), max_leaves=6
)


@st.composite
def json_row(draw, names=name, values=value) -> bytes:
    """A row as one of the writers makes it whose files are read; a name may come twice."""
    fields = draw(st.lists(st.tuples(names, values), max_size=5))
    ascii_only, space = draw(st.booleans()), draw(st.sampled_from(["", " ", "\t \r"]))
    members = [
        f"{json.dumps(key)}{space}:{space}{json.dumps(field, ensure_ascii=ascii_only)}{space}" for key, field in fields
    ]
    row = f"{space}{{{space}{f',{space}'.join(members)}}}{space}"
    if draw(st.booleans()):  # as PHP writes, and with the other digits
        row = re.sub(r"(?<=\\u)[0-9a-f]{4}", lambda digits: digits[0].upper(), row.replace("/", "\\/"))
    return row.encode()


@thorough
@given(st.lists(json_row(), max_size=5))
def test_rows_are_those_of_orjson(native, lines):
    found = read(b"\n".join(lines))
    assert len(found) == len(lines)
    for row, line in zip(found, lines, strict=True):
        if isinstance(row, bytes):
            assert row.removesuffix(b"\n") == line
        else:
            assert repr(sorted(row.items())) == repr(sorted(wanted(line).items()))


@thorough
@given(json_row(st.sampled_from([*FIELDS, "title", "te"]), text | st.integers(0, 10**17)))
def test_usual_rows_need_no_help(native, line):
    assert read(line) == [wanted(line)]


WRONG_UTF8 = [
    b"\xe3",
    b"\xe3\x81",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xe0\x80\x80",
    b"\xf4\x90\x80\x80",
    b"\xf0\x80\x80\x80",
]
WRONG_JSON = [
    b"\\",
    b"\\u",
    b"\\ud83d",
    b"\\udc00",
    b"\\x",
    b"-",
    b"01",
    b"1.",
    b"1e",
    b"1e999",
    b"tru",
    b"NaN",
    b"\t",
    b"\0",
]
damage = st.binary(max_size=2) | st.sampled_from([*WRONG_UTF8, *WRONG_JSON, *(bytes([c]) for c in b'",:{}[]0 ')])


@thorough
@given(json_row(), st.data())
def test_damaged_rows_are_never_read_otherwise(native, line, data):
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(line)))
        line = line[:place] + data.draw(damage) + line[place + data.draw(st.integers(0, 3)) :]
    line = line[: data.draw(st.integers(0, len(line)))] if data.draw(st.booleans()) else line
    for row, part in zip(read(line), line.split(b"\n"), strict=False):
        if isinstance(row, bytes):
            assert row.removesuffix(b"\n") == part
        else:
            assert repr(sorted(row.items())) == repr(sorted(wanted(part).items()))


@pytest.mark.parametrize("depth", [1, 50, 59, 60, 61, 2000])
def test_deep_and_long_values(native, depth):
    for line in (
        b'{"a": ' + b"[" * depth + b"]" * depth + b', "text": "b"}',
        b'{"a": ' + b"1" * depth + b', "text": "b"}',
        b'{"id": ' + b"1" * depth + b', "text": "b"}',
        b'{"a": -0.' + b"0" * depth + b'1e-5, "text": "b"}',
    ):
        (row,) = read(line)
        assert row == line if isinstance(row, bytes) else row == wanted(line)


@thorough
@given(
    text.map(str.encode) | st.binary(max_size=200),
    st.integers(0, 200),
    st.sampled_from([b"", b"\xe3", b"\x81", b"\xed\xa0\x80"]),
)
def test_text_is_that_of_python(native, content, place, damage):
    content = content[:place] + damage + content[place:]
    try:
        expected = content.decode("utf-8")
    except UnicodeDecodeError as error:
        with pytest.raises(UnicodeDecodeError, match=error.reason):
            decode(content)
    else:
        assert decode(content) == expected


@pytest.mark.parametrize("code", [0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFF, 0x10000, 0x10FFFF])
def test_every_place_of_a_round(native, code):
    for before in range(140):
        for after in (0, 1, 70):
            content = "a" * before + chr(code) + "あ" * after
            assert decode(content.encode()) == content
            for escaped in (False, True):
                assert read(json.dumps({"text": content}, ensure_ascii=escaped).encode()) == [{"text": content}]


MC4 = ROOT / "data/mc4/c4-ja.tfrecord-00000-of-01024.json.gz"
WIKI = ROOT / "data/wiki/jawiki_content-20260830-00000.json.bz2"


@pytest.mark.parametrize("path", [MC4, WIKI], ids=lambda path: path.name)
def test_real_rows_are_read_natively(native, path):
    with path.open("rb") as file:
        content = unpack(path, file).read()
    lines = content.splitlines(keepends=True)
    for row, line in zip(read(content), lines, strict=True):
        assert row == (line if line.startswith(b'{"index"') else wanted(line))


def test_without_the_library_the_documents_are_the_same(monkeypatch):
    for path in (ROOT / "data/cc100/ja.txt.xz", MC4, WIKI):
        native = list(read_documents(path, "s", BadRows()))
        with monkeypatch.context() as without:
            without.setattr(rows, "_native", lambda name: None)
            assert list(read_documents(path, "s", BadRows())) == native


@thorough
@given(st.lists(json_row() | st.sampled_from([b"", b" ", b"\r", b"no"]), max_size=6), st.integers(1, 40))
def test_rows_in_any_portions(tmp_path, lines, portion):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(lines))
    whole, parts = BadRows(), BadRows()
    documents = list(read_documents(path, "s", whole))
    with patch("janeox.corpus.unpack.BUFFER", portion):
        assert list(read_documents(path, "s", parts)) == documents
    assert parts == whole


def test_the_thread_ends_with_its_reader(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 200_000)
    before = threading.active_count()
    documents = read_documents(path, "s", BadRows())
    assert next(documents).text == "a"
    assert threading.active_count() == before + 1
    documents.close()
    assert threading.active_count() == before
