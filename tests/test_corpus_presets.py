"""Measures against a count one by one, thresholds from both sides, and what the presets keep."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from janeox.config import CorpusConfig
from janeox.corpus.measures import Measures
from janeox.corpus.pipeline import clean_corpus
from janeox.corpus.presets import PRESETS, Verdict, reason_to_drop, rules, verdicts

WEB = """駅から坂をのぼっていくと、古い倉庫を改装した小さなパン屋が見えてくる。
店主の山本さんは十年前まで東京の会社で働いていたが、父親の病気をきっかけに故郷へ戻った。
最初のうちは売れ残りばかりで、夜中に一人でため息をつくこともあったそうだ。
転機になったのは、近所の農家から分けてもらった小麦を使いはじめたことだった。
香りが強く、噛むほどに甘みが出るので、遠くの町からもわざわざ買いに来る客が増えた。
いまでは朝七時に店を開けると、昼前にはほとんどの棚が空になってしまう。
それでも山本さんは、店を大きくするつもりはないと静かに笑う。
「自分の目が届く分だけ焼いて、顔の見える人に食べてもらえれば十分です。」
窓の外では、学校帰りの子どもたちがにぎやかに手を振りながら通りすぎていく。
雨の日には客足が減るかわりに、常連の老人たちがストーブを囲んで長い話をする。
戦争のころの苦労や、なくなった映画館の思い出を聞いていると、時間のたつのを忘れてしまう。
来年の春には、息子が修業先のフランスから帰ってくる予定だ。
新しい菓子を並べるために、奥の部屋を少しだけ広げようかと家族で相談している。
町の風景は変わっても、焼きたての匂いだけは昔のまま残っていてほしい。"""


@settings(deadline=None)
@given(st.text(st.sampled_from("あアー漢。！?…・a \n𠮷"), max_size=40), st.integers(1, 10))
def test_ngrams_as_counted_one_by_one(text, n):
    counts = Counter(text[start : start + n] for start in range(len(text) - n + 1))
    assert sorted(Measures(text).ngram_counts(n)) == sorted(counts.values())
    measures = Measures(text)
    if counts:
        assert measures.top_ngram(n) == pytest.approx(max(counts.values()) / sum(counts.values()))
        assert measures.repeated_ngrams(n) == pytest.approx(sum(c > 1 for c in counts.values()) / len(counts))
    else:
        assert measures.top_ngram(n) == measures.repeated_ngrams(n) == 0


def test_measures():
    measures = Measures("雨だ。そうか…\nえ？「はい」\nカナ！！abc")
    assert measures.sentences == ["雨だ。", "そうか…", "え？", "「はい」", "カナ！", "abc"]  # a lone ！ is none
    assert measures.mean_sentence == pytest.approx(19 / 6)
    assert measures.longest_sentence == 4
    assert measures.ellipsis_share == pytest.approx(1 / 6)
    assert measures.letters == {"hiragana": 7, "katakana": 2, "other": 5, "japanese": 14}
    assert measures.letter_share("hiragana") == 0.5
    assert measures.letter_share("japanese") == pytest.approx(14 / 22)
    assert measures.kana_at_start == 9
    assert Measures("一二。\n三四五六。").stop_share == 2 / 9
    assert Measures("あ" * 9999).compression < 0.01 < 1 < Measures("あ").compression


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("text", ["", "。", "\n", "a", "あ" * 5000])
def test_every_rule_has_a_finite_figure_for_every_text(preset, text):
    for verdict in verdicts(text, "json", preset, min_chars=1):
        assert 0 <= verdict.value < 10_000
    assert len(text) > 1 or reason_to_drop(text, "json", preset, min_chars=2)


@pytest.mark.parametrize("rule", [rule for preset in PRESETS for rule in rules(preset, 50)], ids=lambda r: r.what)
def test_a_threshold_itself_is_kept(rule):
    assert Verdict(rule, min(rule.most, max(rule.least, 0))).keeps
    assert not Verdict(rule, rule.most * 1.001).keeps or rule.most == float("inf")
    assert not Verdict(rule, rule.least * 0.999).keeps or rule.least == -float("inf")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WEB, None),
        (WEB[:399], "few_letters"),
        (WEB.replace("。\n", "。"), None),
        (WEB + "\n" + "\n".join(["お買い物はこちらからどうぞ。"] * 9), "repeated_lines"),
        (WEB + "お買い物はこちらからどうぞ。" * 9, "repeated_sentences"),
        (WEB.translate({code: code + 0x60 for code in range(0x3041, 0x3097)}), "little_hiragana"),
        (WEB + "\nそれは" + "とおいとおいむかしの" * 20, "sentence_length"),
        (WEB.replace("。", "…"), "ellipsis"),
        (WEB + "\n" + "English prose that goes on and on, without an end. " * 20, "little_japanese"),
    ],
)
def test_swallow(text, reason):
    assert reason_to_drop(text, "json", "swallow", min_chars=50) == reason


def test_swallows_ngram_rules_drop_what_no_other_rule_sees():
    goods = ["卵", "米", "酒", "塩", "茶", "餅", "柿", "梨", "栗", "桃", "鯛", "蟹", "海苔", "味噌"]
    text = "\n".join(f"{good}は本日かぎりの特別なお値段にて、お一人さま一点までご提供しております。" for good in goods)
    assert {v.rule.name for v in verdicts(text, "json", "swallow", 50) if not v.keeps} == {"repeated_ngrams"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WEB, None),
        ("一二三四五六七八九十" * 5 + WEB, "no_kana"),
        (WEB.replace("。", "、"), "sentence_length"),
        ("お買い物はこちらからどうぞ。" * 30, "compression"),
    ],
)
def test_llm_jp(text, reason):
    assert reason_to_drop(text, "json", "llm-jp", min_chars=10) == reason


def test_the_recipe_chooses_the_preset(tmp_path):
    (tmp_path / "a.txt").write_text(f"{WEB}\n\n{WEB[:300]}\n", encoding="utf-8")
    kept = {}
    for preset in ("light", "swallow"):
        config = CorpusConfig({"s": str(tmp_path / "a.txt")}, valid_fraction=0, preset=preset)
        report = clean_corpus(config, tmp_path / preset)
        assert report["preset"] == preset
        kept[preset] = report["sources"]["s"]["train"]["documents"]
    assert kept == {"light": 2, "swallow": 1}
