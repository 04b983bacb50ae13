"""Near-duplicates and contamination: found where they were planted, at the rates that theory gives."""

import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from janeox.config import CorpusConfig
from janeox.corpus import pieces, repeats, stages
from janeox.corpus.contamination import Runs, evaluation_runs
from janeox.corpus.near import BASE, band_keys, letters, mixed, window_hashes
from janeox.corpus.pipeline import clean_corpus, cleaned
from janeox.errors import JaneoxError
from runs import ROOT

LETTERS = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん"


def text_of(seed: random.Random, length: int) -> str:
    return "".join(seed.choices(LETTERS, k=length))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 13, 30])
def test_hashes_of_runs_are_the_polynomials_they_should_be(length):
    text = text_of(random.Random(0), 100) + "𠮟😀"
    expected = []
    for start in range(len(text) - length + 1):
        value = 0
        for character in text[start : start + length]:
            value = (value * BASE + ord(character)) % 2**64
        expected.append(value)
    assert (window_hashes(text, length) == mixed(np.array(expected, np.uint64))).all()
    assert len(window_hashes(text[: length - 1], length)) == 0


def similarity(a: str, b: str, chars: int) -> float:
    one, two = ({text[i : i + chars] for i in range(len(text) - chars + 1)} for text in (a, b))
    return len(one & two) / len(one | two)


@pytest.mark.parametrize("wanted", [0.7, 0.8, 0.9])
def test_near_duplicates_are_found_at_the_rate_of_the_curve(wanted):
    seed, chars, bands, rows, pairs = random.Random(1), 5, 14, 8, 300
    found, expected, variance = 0, 0.0, 0.0
    for _ in range(pairs):
        # Two texts with a common part: c of 1000 letters gives Jaccard about c / (2000 - c).
        common = text_of(seed, round(2000 * wanted / (1 + wanted)))
        one, two = (common + text_of(seed, 1000 - len(common)) for _ in range(2))
        rate = 1 - (1 - similarity(one, two, chars) ** rows) ** bands
        expected, variance = expected + rate, variance + rate * (1 - rate)
        found += bool((band_keys(one, chars, bands, rows) == band_keys(two, chars, bands, rows)).any())
    assert abs(found - expected) < 4 * math.sqrt(variance) + 1


def test_what_is_compared_are_letters():
    assert letters("Ａ１、ｶﾞ ＿！\nを　") == "a1ガを"
    same = [
        band_keys(text, 5, 14, 8) for text in ("吾輩は猫である。名前はまだ無い", "吾輩は、猫である\n名前はまだ　無い。")
    ]
    assert (same[0] == same[1]).all()
    assert not band_keys("！？…", 5, 14, 8).any()  # nothing to compare is like nothing


def test_repeats_are_the_same_however_the_range_is_cut(tmp_path, monkeypatch):
    """Against a set of what was seen: places in a piece whose hash came before, in it or in an earlier one."""
    seed = np.random.default_rng(0)
    seen, expected, files, sizes = set(), [], [], Counter()
    for number in range(4):
        hashes = seed.integers(0, 300, 200, np.uint64) << np.uint64(55)  # 0 among them, which repeats nothing
        places = np.arange(200, dtype=np.uint32) // np.uint32(number + 1)
        expected.append(set())
        for place, value in zip(places.tolist(), hashes.tolist(), strict=True):
            if value in seen:
                expected[-1].add(place)
            if value:
                seen.add(value)
                sizes[value] += 1
        entries, again = pieces.distinct(hashes, places)
        files.append(tmp_path / str(number))
        entries.tofile(files[-1])
        again.tofile(tmp_path / f"{number}-again")
    wanted = Counter(str(2 ** (size - 1).bit_length()) for size in sizes.values() if size > 1)
    for part in (1 << 20, 100, 7):
        monkeypatch.setattr(repeats, "PART", part)
        parts = repeats.num_parts(files)
        found = [tmp_path / f"part{number}" for number in range(parts)]
        for number, out in enumerate(found):
            repeats.find_repeats(files, number, parts, out)
        for piece, file in enumerate(files):
            places = set(pieces.read_array(tmp_path / f"{file.name}-again", np.uint32).tolist())
            assert places.union(*(repeats.repeats_of(out, piece, 4).tolist() for out in found)) == expected[piece]
        assert sum((Counter(repeats.group_sizes(out)) for out in found), Counter()) == wanted


def test_a_large_file_is_shared_and_cut_without_a_difference(tmp_path, works, monkeypatch):
    """The documents that stay are those of an uncut run, whatever the pieces and the tasks that share a file."""
    notice = "この頁の記載内容は予告なく変更される場合がありますので、あらかじめご了承ください。"
    texts = [f"{work[:700]}\n{notice}\n終" for work in works if len(work) > 700]
    nearly = [text[:300] + "（改）" + text[300:] for text in texts[::3]]
    source = write(tmp_path / "a.txt", *texts, *nearly, *texts[::4], "短い。")
    config = CorpusConfig({"a": source}, valid_fraction=0.2, near_duplicates=True, repeated_lines=30, workers=1)
    report = clean_corpus(config, tmp_path / "whole")
    monkeypatch.setattr(stages, "PIECE_CHARS", 2000)
    monkeypatch.setattr(stages, "SHARE_BYTES", Path(source).stat().st_size // 3)
    monkeypatch.setattr(stages, "PIECES_PER_SHARD", 3)
    cut = clean_corpus(config, tmp_path / "cut")
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")
    assert cut["sources"] == report["sources"] and cut["groups"] == report["groups"]
    assert len(list((tmp_path / "cut/train").iterdir())) >= 5


def write(path, *texts):
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return str(path)


def kept(out):
    return [document.text for split in ("train", "valid") for document in cleaned(out, split)]


def test_planted_near_duplicates_go_within_and_across_sources(tmp_path, works):
    texts = ["".join(work.split("\n"))[:600] for work in works if len(work) > 700][:20]
    nearly = [text[:300] + "（改）" + text[300:] for text in texts]
    config = CorpusConfig(
        {"a": write(tmp_path / "a.txt", *texts, nearly[0]), "b": write(tmp_path / "b.txt", *nearly)},
        valid_fraction=0,
        near_duplicates=True,
    )
    report = clean_corpus(config, tmp_path / "out")
    assert kept(tmp_path / "out") == texts
    dropped = [report["sources"][name]["dropped"] for name in "ab"]
    assert dropped[0]["near_duplicate"]["documents"] + dropped[1]["near_duplicate"]["documents"] == 20
    assert dropped[1]["duplicate"]["documents"] == 1


def test_planted_questions_are_all_removed(tmp_path, works):
    questions = [
        "主に子ども向けのもので、イラストのついた物語が書かれているものはどれ？",  # JCommonsenseQA's form
        "男性がテニスのラケットを振っています。",  # a caption, shorter than 30 letters
        "花火が 上がるのは？",  # shorter than any run
    ]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps({"q": q, "label": 1}) + "\n" for q in questions))
    (tmp_path / "set.json").write_text(json.dumps({"data": [{"context": "".join(works[0].split("\n"))[:400]}]}))
    texts = ["".join(work.split("\n"))[:600] for work in works[1:] if len(work) > 700][:30]
    planted = [text[:200] + q + text[200:400] for q in questions for text in texts[:5]]
    planted.append(texts[6][:100] + "".join(works[0].split("\n"))[150:190] + texts[6][100:300])
    source = write(tmp_path / "a.txt", *planted, *texts[7:])
    config = CorpusConfig({"a": source}, valid_fraction=0, decontaminate=(str(tmp_path / "set.*"),))
    report = clean_corpus(config, tmp_path / "out")
    assert kept(tmp_path / "out") == texts[7:]
    assert report["sources"]["a"]["dropped"]["contaminated"]["documents"] == len(planted)


def test_every_short_question_of_jglue_is_found_as_a_line_and_as_a_sentence(works):
    path = ROOT / "tests/data/jglue/short-questions.jsonl"
    runs = evaluation_runs((str(path),))
    texts = [work[:400] for work in works if len(work) > 700]
    assert not any(runs.touch(text) for text in texts)
    for number, row in enumerate(path.read_text(encoding="utf-8").splitlines()):
        question, text = json.loads(row)["question"], texts[number % len(texts)]
        assert runs.touch(f"{text}\n{question}\n{text}"), question
        assert runs.touch(f"{text}。{question.rstrip('。')}。{text}"), question


def test_short_questions_are_whole_sentences_or_end_in_a_mark(tmp_path):
    rows = [{"q": text} for text in ("冬は？", "何を食べるのか?", "料理は", "ゲーム機")] + [{"question": "首都は"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = evaluation_runs((str(tmp_path / "a.jsonl"),))
    found = [
        "さて。冬は？",
        "冬は?",
        "問い：冬は？",
        "「猫は何を、食べるのか？」と",
        "その通り。首都は\n東京",
        "「首都は」と",
    ]
    assert all(map(runs.touch, found))
    passed = [
        "暖冬は？",
        "冬は寒い。春は？",
        "料理は？\nゲーム機？",
        "何を食べるのか、と",
        "日本の首都は\n",
        "首都は東京。",
    ]
    assert not any(map(runs.touch, passed))


def test_training_documents_clear_of_validation(tmp_path, works):
    texts = ["".join(work.split("\n"))[:900] for work in works if len(work) > 1000][:30]
    source = write(tmp_path / "a.txt", *texts)
    config = CorpusConfig({"a": source}, valid_fraction=0.3, decontaminate_valid=True)
    clean_corpus(config, tmp_path / "one")
    valid = [document.text for document in cleaned(tmp_path / "one", "valid")]
    train = [document.text for document in cleaned(tmp_path / "one", "train")]
    assert valid and len(train) + len(valid) == len(texts)
    leaking = train[0] + valid[0][300:700]
    write(tmp_path / "a.txt", *texts, leaking)
    report = clean_corpus(config, tmp_path / "two")
    if leaking not in [document.text for document in cleaned(tmp_path / "two", "valid")]:
        assert report["sources"]["a"]["dropped"]["in_validation"]["documents"] == 1
    assert set(train) == {document.text for document in cleaned(tmp_path / "two", "train")}


def test_lines_that_came_before_are_cut(tmp_path, works):
    texts = ["".join(work.split("\n"))[:300] for work in works if len(work) > 400][:3]
    notice = "この頁の記載内容は予告なく変更される場合がありますので、あらかじめご了承ください。"
    source = write(tmp_path / "a.txt", *(f"{text}\n{notice}\nおわり" for text in texts))
    clean_corpus(CorpusConfig({"a": source}, valid_fraction=0, repeated_lines=30), tmp_path / "out")
    assert kept(tmp_path / "out") == [f"{texts[0]}\n{notice}\nおわり", *(f"{text}\nおわり" for text in texts[1:])]


def test_evaluation_files_that_cannot_be_read(tmp_path):
    with pytest.raises(JaneoxError, match=r"corpus\.decontaminate: '.*none\*' matches no file"):
        evaluation_runs((str(tmp_path / "none*"),))
    (tmp_path / "a.jsonl").write_text('{"q": "x"}\n{broken\n')
    with pytest.raises(JaneoxError, match=r"a\.jsonl: row 2 is not JSON"):
        evaluation_runs((str(tmp_path / "a.jsonl"),))
    assert not Runs({}).touch("何も含まない")
