"""The pipeline on the embedded corpus and on small made-up ones: what is kept, the split, the report, failures."""

import bz2
import gzip
import hashlib
import json
import lzma
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from janeox.config import CorpusConfig
from janeox.corpus import stages, unpack
from janeox.corpus.pipeline import clean_corpus, cleaned, source_files
from janeox.corpus.report import run_clean
from janeox.errors import JaneoxError
from janeox.settings.corpus import Clean

ROOT = Path(__file__).parent.parent
EMBEDDED = {name: str(ROOT / "data" / name) for name in ("cc100", "wiki", "mc4")}


def prose(number: int) -> str:
    return (
        f"これは{number}番目の文書である。"
        + "ひらがなの多い、ふつうの文章が、五十文字をこえるまで、ゆっくりとつづいてゆく。"
    )


def corpus(folder: Path, *texts: str, name: str = "a.txt") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return str(path)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept(out: Path) -> list[str]:
    return [document.text for split in ("train", "valid") for document in cleaned(out, split)]


def leftovers(folder: Path) -> list[str]:
    """What is there, but for finished tasks that the next call goes on from."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".out.work")


def test_embedded_corpus(tmp_path):
    out = tmp_path / "corpus"
    report = clean_corpus(CorpusConfig(EMBEDDED, valid_fraction=0.02), out)
    wiki = bz2.decompress(next((ROOT / "data/wiki").iterdir()).read_bytes()).decode().splitlines()[1::2]
    raw = {
        "cc100": lzma.decompress(next((ROOT / "data/cc100").iterdir()).read_bytes()).decode().strip().split("\n\n"),
        "wiki": [row["text"] for row in map(json.loads, wiki) if row.get("page_type") != "redirect"],
        "mc4": [
            json.loads(line)["text"]
            for line in gzip.decompress(next((ROOT / "data/mc4").iterdir()).read_bytes()).splitlines()
        ],
    }
    for name, texts in raw.items():
        part = report["sources"][name]
        assert part["in"] == {
            "documents": len(texts),
            "chars": sum(map(len, texts)),
            "bytes": sum(len(text.encode()) for text in texts),
        }
        dropped = sum(drop["documents"] for drop in part["dropped"].values())
        assert part["train"]["documents"] + part["valid"]["documents"] + dropped == len(texts)
        assert part["train"]["chars"] > 0.95 * part["in"]["chars"]
        assert part["bad_rows"] == {"count": 0, "first": [], "damaged": []}
    assert set(report["sources"]["mc4"]["dropped"]) == {"little_hiragana", "little_japanese", "repeated_lines"}
    assert report == json.loads((out / "report.json").read_text())
    for split in ("train", "valid"):
        found = list(cleaned(out, split))
        for name in EMBEDDED:
            part = report["sources"][name][split]
            texts = [document.text for document in found if document.source == name]
            assert (len(texts), sum(map(len, texts))) == (part["documents"], part["chars"])
    # The prompt of the quickstart continues articles that are in the training part.
    openings = [document.text[:300] for document in cleaned(out, "train") if document.source == "wiki"]
    assert any(text.startswith("西田 幾多郎（") and "日本を代表する哲学者" in text for text in openings)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    config = CorpusConfig(EMBEDDED, valid_fraction=0.02)
    clean_corpus(config, tmp_path / "one")
    time.sleep(1.1)  # past a second, so that a time stamp would show
    clean_corpus(config, tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    clean_corpus(config, tmp_path / "one")  # over itself
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert leftovers(tmp_path) == ["one", "two"]


def test_duplicates_are_dropped_across_sources(tmp_path):
    a = corpus(tmp_path / "a", prose(1), prose(2), prose(1))
    b = corpus(tmp_path / "b", prose(3), prose(2) + "\u200b  ")  # the same once cleaned
    report = clean_corpus(CorpusConfig({"a": a, "b": b}), tmp_path / "out")
    assert sorted(kept(tmp_path / "out")) == [prose(1), prose(2), prose(3)]
    assert report["sources"]["a"]["dropped"]["duplicate"]["examples"] == ["a.txt:5"]
    assert report["sources"]["b"]["dropped"]["duplicate"]["examples"] == ["a.txt:3"]


def test_split_is_by_hash_and_stays_when_data_is_added(tmp_path):
    texts = [prose(number) for number in range(2000)]
    few = corpus(tmp_path / "few", *texts[:1000])
    many = corpus(tmp_path / "many", *reversed(texts))
    for name, source in (("one", few), ("two", many)):
        clean_corpus(CorpusConfig({"s": source}, valid_fraction=0.1), tmp_path / name)
    one = {document.text for document in cleaned(tmp_path / "one", "valid")}
    two = {document.text for document in cleaned(tmp_path / "two", "valid")}
    assert one == two & set(texts[:1000])
    limit = 0.1 * 2**64
    assert two == {t for t in texts if int.from_bytes(hashlib.blake2b(t.encode(), digest_size=8).digest()) < limit}
    assert 150 < len(two) < 250  # 200 expected, standard deviation 13


def test_valid_fraction_zero_holds_nothing_out(tmp_path):
    source = corpus(tmp_path, *map(prose, range(50)))
    clean_corpus(CorpusConfig({"s": source}, valid_fraction=0), tmp_path / "out")
    assert len(list(cleaned(tmp_path / "out", "train"))) == 50
    assert list(cleaned(tmp_path / "out", "valid")) == []


def test_large_sources_are_split_into_files(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "PIECE_CHARS", 100)
    source = corpus(tmp_path, *map(prose, range(30)))
    clean_corpus(CorpusConfig({"s-1": source}, valid_fraction=0), tmp_path / "out")
    assert leftovers(tmp_path / "out/train")[:2] == ["s-1-00000.jsonl.gz", "s-1-00001.jsonl.gz"]
    assert kept(tmp_path / "out") == list(map(prose, range(30)))
    assert {document.source for document in cleaned(tmp_path / "out", "train")} == {"s-1"}


def test_malformed_rows_are_in_the_report_and_do_not_end_the_run(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": prose(1)}) + "\nbroken\n" + json.dumps({"text": prose(2)}) + "\n")
    run_clean(Clean(tmp_path / "out", CorpusConfig({"s": str(path)}, valid_fraction=0)))
    report = json.loads((tmp_path / "out/corpus/report.json").read_text())
    assert report["sources"]["s"]["bad_rows"]["count"] == 1
    printed = capsys.readouterr().out
    assert "malformed: a.jsonl:2: not JSON" in printed
    assert "report.json" in printed.replace("\n", "")
    assert "next:" in printed


# --- Sources ------------------------------------------------------------------------------------------------------


def test_sources_are_files_globs_and_folders(tmp_path):
    for name in ("b.txt", "a.json.gz", "c.txt.xz", "_SUCCESS", "README.md", ".hidden.txt", "deep/d.jsonl.bz2"):
        corpus((tmp_path / name).parent, "x", name=Path(name).name)

    def found(pattern: str) -> list[str]:
        return [path.name for path in source_files(CorpusConfig({"s": str(tmp_path / pattern)}))["s"]]

    assert found("") == ["a.json.gz", "b.txt", "c.txt.xz", "d.jsonl.bz2"]
    assert found("*.txt*") == ["b.txt", "c.txt.xz"]
    assert found("**/*.bz2") == ["d.jsonl.bz2"]
    assert found("README.md") == ["README.md"]  # named, so meant
    with pytest.raises(JaneoxError, match=r"corpus\.sources\.s = '.*/none\*' matches no corpus file; give"):
        found("none*")
    with pytest.raises(JaneoxError, match="sources is empty"):
        source_files(CorpusConfig())
    with pytest.raises(JaneoxError, match=r"'a/b' becomes part of file names"):
        source_files(CorpusConfig({"a/b": "x"}))


@pytest.mark.parametrize("wrong", [{"valid_fraction": 1.0}, {"valid_fraction": -0.1}, {"min_chars": 0}])
def test_settings_without_meaning(wrong):
    with pytest.raises(JaneoxError, match=rf"corpus\.{next(iter(wrong))} = .*: must be"):
        CorpusConfig({"s": "x"}, **wrong)


# --- Failures leave nothing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts", [[], ["短い。"], ["English prose, long enough to be kept if it were Japanese prose."]]
)
def test_empty_corpus(tmp_path, texts):
    source = corpus(tmp_path / "raw", *texts)
    with pytest.raises(JaneoxError, match=rf"empty corpus: .*s: {len(texts)} read"):
        clean_corpus(CorpusConfig({"s": source}), tmp_path / "out")
    assert leftovers(tmp_path) == ["raw"]


def test_a_source_without_documents_is_named_though_another_has_some(tmp_path):
    good = corpus(tmp_path / "raw", prose(1))
    bad = corpus(tmp_path / "raw", "no rows", name="b.json")
    with pytest.raises(JaneoxError, match=r"empty corpus: source bad.*b\.json:1: not JSON"):
        clean_corpus(CorpusConfig({"good": good, "bad": bad}), tmp_path / "out")
    assert leftovers(tmp_path) == ["raw"]


def test_truncated_archive_ends_its_file_or_where_asked_the_run(tmp_path, capsys, monkeypatch):
    """Where it ends the run, the corpus that was there stays."""
    monkeypatch.setattr(unpack, "BUFFER", 4096)  # what comes at once with the damage is lost
    raw = tmp_path / "raw"
    config = CorpusConfig({"s": corpus(raw, *map(prose, range(99)))}, valid_fraction=0.1)
    clean_corpus(config, tmp_path / "out")
    before = files(tmp_path / "out")
    packs = {"xz": (lzma.compress, 0), "gz": (gzip.compress, 8000), "bz2": (bz2.compress, 4900)}  # all in one block: 0
    for ending, (pack, least) in packs.items():
        name = f"x.txt.{ending}"
        corpus(raw, prose(7), name="whole.txt")
        (raw / name).write_bytes(pack("\n\n".join(map(prose, range(9000))).encode())[:-2000])
        asked = CorpusConfig({"s": str(raw / "[xw]*.txt*")}, valid_fraction=0, stop_on_bad_rows=True)
        with pytest.raises(JaneoxError, match=rf"{name}: the archive is truncated"):
            clean_corpus(asked, tmp_path / "out")
        run_clean(Clean(tmp_path / "run", replace(asked, stop_on_bad_rows=False)))
        assert re.search(rf"damaged: {name}:\d+: .* read up to row \d+ ", capsys.readouterr().out)
        report = json.loads((tmp_path / "run/corpus/report.json").read_text())
        assert report["sources"]["s"]["files"] == ["whole.txt", name]
        read = report["sources"]["s"]["in"]["documents"] - 1
        assert read >= least
        assert {prose(7), *map(prose, range(read))} == set(kept(tmp_path / "run/corpus"))
        (raw / name).unlink()
        shutil.rmtree(tmp_path / "run")
    assert files(tmp_path / "out") == before
    assert leftovers(tmp_path) == ["out", "raw"]


def test_a_folder_with_something_else_is_not_overwritten(tmp_path):
    source = corpus(tmp_path / "raw", prose(1))
    with pytest.raises(JaneoxError, match="exists and is not a cleaned corpus"):
        clean_corpus(CorpusConfig({"s": source}), tmp_path / "raw")
    assert leftovers(tmp_path / "raw") == ["a.txt"]


def test_full_disk_is_one_clear_message(tmp_path, monkeypatch):
    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stages, "script_counts", full)
    with pytest.raises(JaneoxError, match=r"out.*: the disk is full"):
        clean_corpus(CorpusConfig({"s": corpus(tmp_path / "raw", prose(1))}), tmp_path / "out")
    assert leftovers(tmp_path) == ["raw"]


def test_reading_back_what_is_no_cleaned_corpus(tmp_path):
    clean_corpus(
        CorpusConfig({"s": corpus(tmp_path / "raw", *map(prose, range(9)))}, valid_fraction=0), tmp_path / "out"
    )
    with pytest.raises(JaneoxError, match=r"raw: is not a cleaned corpus .*janeox clean"):
        list(cleaned(tmp_path / "raw", "train"))
    with pytest.raises(JaneoxError, match=r"split 'test': a cleaned corpus has train and valid"):
        list(cleaned(tmp_path / "out", "test"))
    shard = tmp_path / "out/train/s-00000.jsonl.gz"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-20])
    with pytest.raises(JaneoxError, match="truncated"):
        list(cleaned(tmp_path / "out", "train"))
    shard.write_bytes(gzip.compress(gzip.decompress(whole)[:-20]))
    with pytest.raises(JaneoxError, match=r"damaged since it was cleaned: s-00000.jsonl.gz:9"):
        list(cleaned(tmp_path / "out", "train"))
