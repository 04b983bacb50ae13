"""Each cleaning rule on what it is for and on its near misses; properties that hold for any text."""

import re
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from janeox.corpus.clean import (
    clean,
    normalize,
    without_header_and_footer,
    without_page_furniture,
    without_wiki_residue,
)
from janeox.corpus.document import Document
from janeox.corpus.figures import Figures
from janeox.corpus.measures import repeat_shares
from janeox.corpus.presets import Judge, rules
from janeox.corpus.word_lists import WordLists

relaxed = settings(deadline=None)  # the first example pays for the imports

PROSE = "西田幾多郎は、日本を代表する哲学者である。京都学派の創始者であり、『善の研究』を著したことで知られている。"


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("一\r\n二\r三\u2028四\x0b五\x85六", "一\n二\n三\n四\n五\n六"),
        ("  一  \n\n\u3000二\u3000\n \n", "一\n二"),
        ("a  b\t\tc\xa0d", "a b c d"),
        ("氏 \u3000\u3000 名", "氏\u3000名"),
        ("\ufeff見\u200bえ\xadな\u200eい\x00\x7f", "見えない"),
        ("か\u3099ハ\u309a", "がパ"),
        ("？①ｱＡ㍿ﬁ", "？①ｱＡ㍿ﬁ"),  # NFKC would change every one
        ("\ufa19と神", "\ufa19と神"),  # NFC would make them one
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("", ""),
    ],
)
def test_normalize(raw, wanted):
    assert normalize(raw) == wanted


@relaxed
@given(st.text())
def test_normalize_is_settled_and_loses_no_letter(text):
    once = normalize(text)
    assert normalize(once) == once
    assert all(unicodedata.category(char) != "Cc" or char == "\n" for char in once)
    assert all(line and line == line.strip() for line in once.split("\n") if once)
    kept = [c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c)[0] in "LNPS"]
    assert [c for c in unicodedata.normalize("NFC", once) if unicodedata.category(c)[0] in "LNPS"] == kept


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("哲学者[12]である[要出典]。[注 3]", "哲学者である。"),
        ("禅[疑問点 – ノート]と悟り[編集]", "禅と悟り"),
        ("配列[i]と[日本]と[1999年]", "配列[i]と[日本]と[1999年]"),
        ("前{{要出典|date=2020}}後{{a|{{b}}}}", "前後"),
        ("円周率 {\\displaystyle \\pi ={\\frac {C}{d}}} は数である。", "円周率  は数である。"),
        ("長さ \\displaystyle x^2 である", "長さ である"),
        ("閉じない {\\displaystyle {x のあと", "閉じない のあと"),
        ("本文は以上である。 ^ 『善の研究』 ^ a b 岩波", "本文は以上である。 "),
        (
            "2 ^ 3 は八であり、この文はそのあともずっと続いてゆく。",
            "2 ^ 3 は八であり、この文はそのあともずっと続いてゆく。",
        ),
        ("ファッション（）と（、[1]）服（ふく）", "ファッションと服（ふく）"),
    ],
)
def test_wikipedia_residue(raw, wanted):
    assert without_wiki_residue(raw) == wanted


def test_page_furniture_goes_only_where_it_is_the_whole_line():
    page = [
        "ホーム > 製品 > 一覧",
        "トップページへ戻る",
        "次のページ »",
        "続きを読む…",
        "プライバシーポリシー",
        "https://example.org/a?b=c",
        "Copyright (c) 2020 Example",
        "© 2020 例",
        "All Rights Reserved.",
    ]
    prose = [
        "続きを読む人は少ない。",
        "ホームへ戻る途中、雨が降った。",
        "https://example.org/を開くと、日本語の文が表示されます。",
        "a > 0かつb > 0であること",
        "著作権（Copyright）とは何か。",
        "検索エンジン",
    ]
    mixed = [line for pair in zip(page, prose * 2, strict=False) for line in pair]
    assert without_page_furniture("\n".join(mixed)).split("\n") == (prose * 2)[: len(page)]


def test_headers_and_footers_go_at_the_ends_only():
    top = ["2019年3月4日（月） 12:30", "投稿者: 山田", "カテゴリー：日記", "ホーム | 会社概要 | 採用情報"]
    prose = ["タグ：と書かれた札が、木にさがっていた。", "投稿日: 不明", "つぎの日は2019年3月5日だった。"]
    bottom = ["コメント (3)", "トラックバック：0件", "Posted by 太郎", "更新日：2020/1/2"]
    assert without_header_and_footer("\n".join(top + prose + bottom)).split("\n") == prose
    assert without_header_and_footer("\n".join(top + bottom)) == ""
    assert without_header_and_footer("表は 一 | 二 である。") == "表は 一 | 二 である。"


def test_clean_applies_what_the_kind_calls_for():
    raw = "配列[1]を返す。\u3000\nメニュー\n終"
    assert clean(Document(raw, "s", "1", "f:1", "json")) == "配列[1]を返す。\n終"
    assert clean(Document(raw, "s", "1", "f:1", "wiki")) == "配列を返す。\nメニュー\n終"


@relaxed
@given(
    st.text(st.sampled_from("あ漢a \u3000[]{}\\^（）1注要\n>©かゝ\u3099"), max_size=60),
    st.sampled_from(["text", "json", "wiki"]),
)
def test_cleaning_only_takes_away(text, kind):
    cleaned = clean(Document(text, "s", "1", "f:1", kind))
    assert len(cleaned) <= len(text)
    # Decomposed, since taking something away can bring a kana and its voicing mark together.
    rest = iter(unicodedata.normalize("NFD", text))
    left = re.sub(r"\s", "", unicodedata.normalize("NFD", cleaned))
    assert all(any(char == other for other in rest) for char in left)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        (PROSE, "text", None),
        (PROSE[:49], "text", "too_short"),
        (PROSE[:50], "text", None),
        ("The quick brown fox jumps over the lazy dog, again and again, all day.", "json", "little_japanese"),
        ("中華人民共和国憲法第一条国家根本制度社会主義制度" * 3, "json", "little_hiragana"),
        ("天正七年織田信長命守護大名一色義道滅亡丹後国細川幽斎田辺城築城" * 2, "wiki", None),
        ("お買い物はこちらからどうぞ。\n" * 6 + PROSE, "text", "repeated_lines"),
        ("\n".join(["「はい。」", PROSE, "「いいえ。」", PROSE[::-1], "「はい。」"]), "text", None),
        ("", "text", "too_short"),
    ],
)
def test_reason_to_drop(text, kind, reason):
    assert Judge(rules("light", 50, {}), WordLists({})).reason_to_drop(text, kind) == reason


@relaxed
@given(st.text(st.sampled_from("あゝがア・ー漢々〆。、！aA1 \n\u3000é𠮷"), min_size=1))
def test_shares_as_counted_one_by_one(text):
    solid = [char for char in text if not char.isspace()]
    hiragana = sum(char in "あゝが" for char in solid)
    japanese = sum(char in "あゝがア・ー漢々〆。、！𠮷" for char in solid)
    assert Figures(text)["hiragana"] == pytest.approx(hiragana / max(1, len(solid)))
    assert Figures(text)["japanese"] == pytest.approx(japanese / max(1, len(solid)))
    lines = text.split("\n")
    again = [line for place, line in enumerate(lines) if line in lines[:place]]
    assert repeat_shares(text.split("\n")) == pytest.approx(
        (len(again) / len(lines), len("".join(again)) / max(1, len("".join(lines))))
    )


@pytest.mark.parametrize(
    "hard",
    [
        "{",
        "{{",
        "\\displaystyle ",
        "{\\displaystyle {",
        "[要",
        " > a",
        "（",
        "\u3000 ",
        " ^ ",
        "前の",
        "a | ",
        "投稿日 ",
        "2020年",
    ],
)
def test_no_text_takes_forever(hard):
    """Patterns that backtrack would take minutes here."""
    started = time.monotonic()
    for kind in ("text", "wiki"):
        clean(Document(hard * 20_000 + "。", "s", "1", "f:1", kind))
    assert time.monotonic() - started < 5
