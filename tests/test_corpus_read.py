"""The readers against ten-line readers of the standard library, on real files, generated files and broken ones."""

import bz2
import gzip
import io
import json
import lzma
import random
from pathlib import Path
from unittest.mock import patch

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from janeox.corpus import rows
from janeox.corpus.document import Document
from janeox.corpus.read import BadRows, read_documents
from janeox.errors import JaneoxError

ROOT = Path(__file__).parent.parent
SAMPLES = Path(__file__).parent / "data/corpus"
PACK = {
    "": bytes,
    ".xz": lambda content: lzma.compress(content, preset=0),
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
UNPACK = {
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".zst": lambda content: zstandard.ZstdDecompressor().stream_reader(content).read(),
}


def documents(path: Path) -> tuple[list[Document], BadRows]:
    bad_rows = BadRows()
    return list(read_documents(path, "s", bad_rows)), bad_rows


def texts(path: Path) -> list[str]:
    found, bad_rows = documents(path)
    assert bad_rows.count == 0, bad_rows.first
    return [document.text for document in found]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(PACK.get(path.suffix, bytes)(content))
    return path


def unpacked(path: Path) -> str:
    content = path.read_bytes()
    try:
        return UNPACK[path.suffix](content).decode()
    except lzma.LZMAError:  # the sample that is plain text under a name in .xz
        return content.decode()


# --- Real files, against independent readers ----------------------------------------------------------------------


@pytest.mark.parametrize("path", [ROOT / "data/cc100/ja.txt.xz", SAMPLES / "cc100-am.txt.xz"], ids=lambda p: p.name)
def test_cc100_as_a_split_at_empty_lines(path):
    assert texts(path) == [text.strip("\n") for text in unpacked(path).split("\n\n") if text.strip()]


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "data/mc4/c4-ja.tfrecord-00000-of-01024.json.gz",
        SAMPLES / "c4-af.tfrecord-00000-of-00064.json.gz",
        SAMPLES / "c4-train.00000-of-01024.json.gz",
    ],
    ids=lambda p: p.name,
)
def test_mc4_as_json_loads(path):
    rows = [json.loads(line) for line in unpacked(path).split("\n") if line]
    found, bad_rows = documents(path)
    assert [(d.text, d.id) for d in found] == [(row["text"], row["url"]) for row in rows]
    assert bad_rows.count == 0
    assert {d.kind for d in found} == {"json"}


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "data/wiki/jawiki_content-20260830-00000.json.bz2",
        SAMPLES / "jawiki-20080607-cirrussearch-content.json.gz",
    ],
    ids=lambda p: p.name,
)
def test_cirrussearch_as_pairs_of_lines(path):
    lines = unpacked(path).split("\n")
    pairs = [(json.loads(a), json.loads(b)) for a, b in zip(lines[::2], lines[1::2], strict=False) if a]
    wanted = [(b["text"], a["index"]["_id"]) for a, b in pairs if b.get("page_type") != "redirect"]
    found, bad_rows = documents(path)
    assert [(d.text, d.id) for d in found] == wanted
    assert bad_rows.count == 0
    assert {d.kind for d in found} == {"wiki"}


def test_embedded_corpus_is_named_in_full():
    rows = [line.split("\t") for line in (ROOT / "data/sources.tsv").read_text().splitlines()[1:]]
    for folder in ("cc100", "wiki", "mc4"):
        (path,) = (ROOT / "data" / folder).iterdir()
        found, named = documents(path)[0], [row for row in rows if row[0] == f"{folder}/{path.name}"]
        assert len(named) == len(found) > 50
        column = {"cc100": 3, "wiki": 1, "mc4": 5}[folder]  # title, page id, address
        assert [row[column] for row in named] == [d.text.split("\n")[0] if column == 3 else d.id for d in found]
        assert all(len(row) == 6 and all(row) for row in named)
    assert (
        sum(path.stat().st_size for name in ("cc100", "wiki", "mc4") for path in (ROOT / "data" / name).iterdir())
        < 1_600_000
    )


# --- Round trips --------------------------------------------------------------------------------------------------

# Anything UTF-8 can hold; a row of JSON may hold line breaks, a paragraph may not.
anything = st.text(st.characters(codec="utf-8"), min_size=1)
paragraph = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r\ufeff"), min_size=1).filter(
    lambda text: text.encode().strip() != b""
)
cc100_document = st.lists(paragraph, min_size=1, max_size=4).map("\n".join)
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(
    st.lists(cc100_document, max_size=5),
    st.sampled_from(list(PACK)),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
)
def test_cc100_round_trip(tmp_path, wanted, packing, end, bom, last_line_ends, blank_lines):
    content = (end * (blank_lines + 1)).join(text.replace("\n", end) for text in wanted)
    content = "\ufeff" * bom + content + end * (last_line_ends and bool(wanted))
    path = tmp_path / f"x.txt{packing}"
    write(path, content.encode())
    assert texts(path) == wanted


@settings(relaxed, max_examples=300)
@given(st.text("ab \t\r\n\f", max_size=80), st.integers(1, 9))
def test_text_in_any_portions_as_a_reader_of_lines_has_it(tmp_path, content, portion):
    wanted, lines = [], []
    for number, line in enumerate(io.BytesIO(content.encode() + b"\n\n"), 1):
        if not line.isspace():
            lines.append((number, line))
        elif lines:
            text = b"".join(line for _, line in lines).replace(b"\r\n", b"\n").removesuffix(b"\n").decode()
            wanted.append((text, f"x.txt:{lines[0][0]}"))
            lines = []
    path = write(tmp_path / "x.txt", content.encode() + b"\n")
    with patch("janeox.corpus.unpack.BUFFER", portion):
        assert [(document.text, document.where) for document in documents(path)[0]] == wanted


@relaxed
@given(st.lists(anything, max_size=5), st.sampled_from(list(PACK)), st.booleans(), st.booleans(), st.randoms())
def test_mc4_round_trip(tmp_path, wanted, packing, escaped, bom, order):
    rows = []
    for number, text in enumerate(wanted):
        row = [("text", text), ("timestamp", "2020-01-29T17:34:54Z"), ("url", f"https://example.org/{number}")]
        order.shuffle(row)
        rows.append(json.dumps(dict(row), ensure_ascii=escaped))
    path = write(tmp_path / f"c4-ja.json{packing}", ("\ufeff" * bom + "\n".join(rows)).encode())
    assert texts(path) == wanted
    named = path.rename(tmp_path / f"no-known-name{packing}")  # the content then tells
    assert texts(named) == wanted


@relaxed
@given(st.lists(st.tuples(anything, st.integers(0, 3)), max_size=6), st.booleans(), st.sampled_from([".gz", ".bz2"]))
def test_cirrussearch_round_trip(tmp_path, pages, old, packing):
    """Articles come back; redirects (1), pages of other namespaces (2) and empty articles (3) are passed over."""
    lines = []
    for number, (text, case) in enumerate(pages):
        index = {"_type": "_doc", "_id": str(number)} if old else {"_id": str(number)}
        row = {"title": "題", "namespace": 1 if case == 2 else 0, "text": "" if case == 3 else text}
        if case == 1:
            row = {"title": "題", "namespace": 0, "page_type": "redirect"}
        lines += [json.dumps({"index": index}), json.dumps(row, ensure_ascii=old)]
    path = write(tmp_path / f"x.json{packing}", "".join(line + "\n" for line in lines).encode())
    found, bad_rows = documents(path)
    assert [(d.id, d.text) for d in found] == [(str(n), text) for n, (text, case) in enumerate(pages) if case == 0]
    assert bad_rows.count == 0


def test_a_stray_null_is_no_reason_to_refuse_a_file(tmp_path):
    assert texts(write(tmp_path / "x.txt", "一二三\0四五\n".encode())) == ["一二三\0四五"]


def test_where_is_file_and_line(tmp_path):
    path = write(tmp_path / "a.txt", "\n\n一\n二\n\n\n三\n".encode())
    assert [(d.where, d.id, d.text) for d in documents(path)[0]] == [
        ("a.txt:3", "a.txt:3", "一\n二"),
        ("a.txt:7", "a.txt:7", "三"),
    ]


def test_progress_adds_up_to_the_file(tmp_path):
    for packing in PACK:
        path = write(tmp_path / f"x.txt{packing}", "あいう\n\n".encode() * 5000)
        steps: list[int] = []
        list(read_documents(path, "s", BadRows(), steps.append))
        assert sum(steps) == path.stat().st_size


# --- Broken files -------------------------------------------------------------------------------------------------


@settings(relaxed, max_examples=250)
@given(st.binary(max_size=400), st.sampled_from(["x.txt.xz", "x.json.gz", "x.jsonl", "x", "x.bz2"]), st.integers(0, 6))
def test_random_bytes_are_a_clear_error_or_bad_rows(tmp_path, content, name, case):
    content = [b"", b"\xfd7zXZ\x00", b"\x1f\x8b\x08\x00", b"BZh9", b'{"text": "', b"\x28\xb5\x2f\xfd", b"PAR1"][
        case
    ] + content
    path = tmp_path / name
    path.write_bytes(content)
    try:
        for document in documents(path)[0]:
            document.text.encode()
    except JaneoxError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("packing", UNPACK)
def test_truncated_archive_is_an_error_that_says_how_far(tmp_path, packing):
    rng = random.Random(0)
    noise = "\n\n".join("".join(chr(rng.randrange(0x3041, 0x9FFF)) for _ in range(60)) for _ in range(3000))
    path = write(tmp_path / f"x.txt{packing}", noise.encode())
    whole = path.read_bytes()
    for share in (0.0001, 0.01, 0.5, 0.99, 0.99999):
        path.write_bytes(whole[: max(1, int(share * len(whole)))])
        with pytest.raises(JaneoxError, match=r"x\.txt.*truncated or damaged.* row \d+ .*Fetch it again"):
            documents(path)


@pytest.mark.parametrize("packing", UNPACK)
def test_damaged_archive_is_an_error(tmp_path, packing):
    path = write(tmp_path / f"x.txt{packing}", bytes(random.Random(1).choices(range(97, 122), k=50_000)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8] = b"\xff\x00\xff\x00\xff\x00\xff\x00"
    path.write_bytes(content)
    with pytest.raises(JaneoxError, match="truncated or damaged"):
        documents(path)


def test_several_archives_in_one_file(tmp_path):
    for packing in UNPACK:
        path = tmp_path / f"x.txt{packing}"
        path.write_bytes(PACK[packing]("一\n\n".encode()) + PACK[packing]("二\n".encode()))
        assert texts(path) == ["一", "二"]


def test_invalid_utf8_drops_its_document_only(tmp_path):
    path = write(tmp_path / "x.txt.xz", "一\n\n二\n".encode() + b"\xe3\x81\n" + "三\n\n四\n".encode())
    found, bad_rows = documents(path)
    assert [d.text for d in found] == ["一", "四"]
    assert bad_rows.count == 1
    assert bad_rows.first[0].startswith("x.txt.xz:4: not UTF-8")


def test_malformed_rows_are_named_and_passed_over(tmp_path):
    rows = [
        b'{"text": "\xe4\xb8\x80"}',
        b'{"text": "cut',
        b'{"text": "\xff"}',
        b'{"url": "https://example.org/"}',
        b'{"text": 5}',
        b'["text"]',
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        b'{"text": "\xe4\xba\x8c", "id": 7}',
    ]
    found, bad_rows = documents(write(tmp_path / "x.jsonl.gz", b"\n".join(rows)))
    assert [(d.text, d.id) for d in found] == [("一", "x.jsonl.gz:1"), ("二", "7")]
    assert bad_rows.count == 7
    lines = [row.split(": ")[0] for row in bad_rows.first]
    assert lines == [f"x.jsonl.gz:{number}" for number in range(2, 9)]


def test_a_dump_that_lost_a_line(tmp_path):
    rows = ['{"index":{"_id":"1"}}', '{"index":{"_id":"2"}}', '{"namespace":0,"text":"二"}', '{"index":{"_id":"3"}}']
    found, bad_rows = documents(write(tmp_path / "x.json.bz2", "\n".join(rows).encode()))
    assert [(d.id, d.text) for d in found] == [("2", "二")]
    assert [row.split(": ")[0] for row in bad_rows.first] == ["x.json.bz2:1", "x.json.bz2:4"]


def test_only_the_first_bad_rows_are_kept(tmp_path):
    bad_rows = documents(write(tmp_path / "x.jsonl", b"no\n" * 1000))[1]
    assert (bad_rows.count, len(bad_rows.first)) == (1000, 20)


def test_endless_rows_and_documents_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_BYTES", 100)
    path = write(tmp_path / "x.jsonl", b'{"text": "' + b"a" * 500 + b'"}\n{"text": "b"}\n')
    found, bad_rows = documents(path)
    assert ([d.text for d in found], bad_rows.count) == (["b"], 1)
    path = write(tmp_path / "x.txt", b"a" * 500 + b"\nb\n\nc\n\n" + b"d\n" * 80 + b"\ne")
    found, bad_rows = documents(path)
    assert [d.text for d in found] == ["c", "e"]
    assert [row.split(": ")[0] for row in bad_rows.first] == ["x.txt:1", "x.txt:6"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1\x15\x04", "truncated or damaged"),
        (b"PK\x03\x04\x00\x00", "zip"),
        ("あ".encode("utf-16"), "UTF-16"),
        (b"\x7fELF\x00\x00\x00\x00\x00", "neither UTF-8 text nor an archive"),
        ("善の研究".encode("cp932"), "iconv -f CP932"),
    ],
)
def test_foreign_formats_are_named(tmp_path, content, message):
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    with pytest.raises(JaneoxError, match=message):
        documents(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(JaneoxError, match=r"none\.txt: no such file"):
        documents(tmp_path / "none.txt")
    with pytest.raises(JaneoxError, match="cannot be read"):
        documents(tmp_path)


def test_empty_files_hold_nothing(tmp_path):
    for name in ("x.txt", "x.jsonl", "x.txt.xz", "x.json.gz", "x.json.bz2"):
        assert texts(write(tmp_path / name, b"")) == []
        assert texts(write(tmp_path / name, b"\n \t\r\n\n")) == []
