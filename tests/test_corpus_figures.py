"""Figures: known values, the native library against plain Python, and both against datatrove's filters."""

from collections import Counter

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.utils import word_tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.corpus import OurWords
from janeox.corpus import figures
from janeox.corpus.clean import normalize
from janeox.corpus.figures import Figures
from janeox.corpus.presets import FINEWEB_SOURCE, Judge, rules
from janeox.corpus.read import BadRows, read_documents
from janeox.corpus.word_lists import WordLists
from janeox.corpus.words import words
from janeox.native import library
from runs import ROOT

hard = st.text(
    st.sampled_from("あのというてたアカー漢字年月。！?…・a. \n#-•9𠮷😀ｱ①_²é\u3000\u1680"), max_size=80
) | st.text(max_size=60)
relaxed = settings(deadline=None)


def sample():
    for path in sorted((ROOT / "data").glob("*/*")):
        if path.parent.name in ("cc100", "mc4", "wiki"):
            yield from list(read_documents(path, "s", BadRows()))[::20]


def test_the_library_was_built():
    assert library() is not None  # else the comparison below compares Python with itself


@pytest.mark.parametrize(("group", "names", "python"), figures._GROUPS, ids=lambda g: g if isinstance(g, str) else "")
def test_native_figures_are_those_of_python(group, names, python):
    call = figures._native(group)

    @settings(relaxed, max_examples=200)
    @given(hard)
    def equal(text):
        assert figures._figures(call, text.encode(), len(names)) == python(text)

    equal()
    for document in list(sample())[::6]:
        assert figures._figures(call, document.text.encode(), len(names)) == python(document.text)


def test_without_the_library_python_counts(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(figures, "_native", lambda group: None)
        without = [Figures("雨だ。" * 20)[name] for name in figures.WHAT]
    assert without == [Figures("雨だ。" * 20)[name] for name in figures.WHAT]


def test_known_values():
    found = Figures("雨だ。そうか…\nえ？「はい」\nカナ！！abc")
    # Sentences: 雨だ。 そうか… え？ 「はい」 カナ！ abc; a lone ！ is none.
    assert found["mean_sentence"] == pytest.approx(19 / 6)
    assert (found["longest_sentence"], found["ellipsis_sentences"]) == (4, 1 / 6)
    assert (found["japanese_letters"], found["hiragana_letters"]) == (14, 0.5)
    assert found["japanese_letter_share"] == pytest.approx(14 / 22)
    assert found["kana_at_start"] == 9
    assert Figures("一二。\n三四五六。")["full_stops"] == 2 / 9
    assert Figures("あ" * 9999)["compression"] < 0.01 < 1 < Figures("あ")["compression"]
    mixed = "これは日本語です。\nThis line is not.\n目次\n中华人民共和国的政治体制和经济制度以及文化生活简介如下"
    assert Figures(mixed)["japanese_lines"] == pytest.approx(8 / (8 + 13 + 27))  # 目次 could be either


@relaxed
@given(st.text(st.sampled_from("あアー漢。！?…・a \n𠮷"), max_size=40), st.integers(2, 10))
def test_ngrams_as_counted_one_by_one(text, n):
    counts = Counter(text[start : start + n] for start in range(len(text) - n + 1)).values()
    if n <= 4:
        assert Figures(text)[f"top_{n}gram"] == max(counts, default=0) / max(1, sum(counts))
    else:
        assert Figures(text)[f"repeated_{n}grams"] == sum(c > 1 for c in counts) / max(1, len(counts))


def test_words_change_with_the_script_and_at_function_words():
    cut = "東京 都 に 住 ん で い ます 。 Python は Tokyo の 3 . 5 倍 、 スーパーマーケット"
    assert " ".join(words(cut.replace(" ", ""))) == cut


@given(hard)
@relaxed
def test_words_lose_nothing_but_white_space(text):
    assert "".join(words(text)) == "".join(text.split())


# --- datatrove's filters, over our words ----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def our_words(monkeypatch):
    monkeypatch.setattr(word_tokenizers, "load_word_tokenizer", lambda language: OurWords())


def fineweb2():
    """FineWeb-2's filters for jpn_Jpan as its pipeline sets them up."""
    top = ((2, 0.239), (3, 0.196), (4, 0.172))
    repeated = ((5, 0.243), (6, 0.225), (7, 0.207), (8, 0.19), (9, 0.175), (10, 0.159))
    return [
        GopherRepetitionFilter(0.328, 0, 0, 0, top, repeated, language="ja"),
        FineWebQualityFilter(
            short_line_thr=999, char_duplicates_ratio=0.1, line_punct_thr=0.096, new_line_ratio=0.13, language="ja"
        ),
        GopherQualityFilter(
            min_avg_word_length=1,
            max_avg_word_length=6,
            max_non_alpha_words_ratio=0.759,
            min_stop_words=2,
            stop_words=list("のにをはたてがとで年し・月れさ"),
            language="ja",
        ),
    ]


def keeps(filters, text):
    return bool(text) and all(step.filter(Document(text, "1")) is True for step in filters)


def published():
    return Judge([rule for rule in rules("fineweb2", 1, {}) if rule.source == FINEWEB_SOURCE], WordLists({}))


def test_fineweb2_decides_as_datatroves_filters_on_real_documents():
    decisions = Counter()
    for document in sample():
        for text in (normalize(document.text), normalize(document.text[:300]), normalize(document.text[:200] * 3)):
            kept = published().reason_to_drop(text, "json") is None
            assert kept == keeps(fineweb2(), text), text
            decisions[kept] += 1
    assert min(decisions.values()) > 20, decisions


piece = st.sampled_from(
    ["これは", "ある日のことで、", "東京都", "ABC", "。\n", "、", "です。", "…\n", "#", "- 一つ目は", "5", "\n"]
)


@settings(relaxed, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(piece, min_size=60, max_size=150))
def test_fineweb2_decides_as_datatroves_filters_on_made_up_texts(pieces):
    text = normalize("".join(pieces))
    assert (published().reason_to_drop(text, "json") is None) == keeps(fineweb2(), text)
