"""Thresholds from both sides, what the presets keep, and the recipe's own thresholds and lists."""

import pytest

from janeox.config import CorpusConfig
from janeox.corpus.figures import WHAT
from janeox.corpus.pipeline import clean_corpus
from janeox.corpus.presets import PRESETS, Judge, Verdict, rules
from janeox.corpus.word_lists import LISTS, WordLists
from janeox.errors import JaneoxError

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


def judge(preset, min_chars=50, thresholds=None, word_lists=None):
    return Judge(rules(preset, min_chars, thresholds or {}), WordLists(word_lists or {}))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("text", ["", "。", "\n", "a", "あ" * 5000])
def test_every_rule_has_a_finite_figure_for_every_text(preset, text):
    for verdict in judge(preset, 1).verdicts(text, "json"):
        assert 0 <= verdict.value < 10_000
    assert len(text) > 1 or judge(preset, 2).reason_to_drop(text, "json")


@pytest.mark.parametrize("rule", [rule for preset in PRESETS for rule in rules(preset, 50, {})], ids=lambda r: r.what)
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
    assert judge("swallow", 50).reason_to_drop(text, "json") == reason


def test_swallows_ngram_rules_drop_what_no_other_rule_sees():
    goods = ["卵", "米", "酒", "塩", "茶", "餅", "柿", "梨", "栗", "桃", "鯛", "蟹", "海苔", "味噌"]
    text = "\n".join(f"{good}は本日かぎりの特別なお値段にて、お一人さま一点までご提供しております。" for good in goods)
    assert {v.rule.name for v in judge("swallow").verdicts(text, "json") if not v.keeps} == {"repeated_ngrams"}


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
    assert judge("llm-jp", 10).reason_to_drop(text, "json") == reason


def test_the_recipe_chooses_the_preset(tmp_path):
    (tmp_path / "a.txt").write_text(f"{WEB}\n\n{WEB[:300]}\n", encoding="utf-8")
    kept = {}
    for preset in ("light", "swallow"):
        config = CorpusConfig({"s": str(tmp_path / "a.txt")}, valid_fraction=0, preset=preset)
        report = clean_corpus(config, tmp_path / preset)
        assert report["preset"] == preset
        kept[preset] = report["sources"]["s"]["train"]["documents"]
    assert kept == {"light": 2, "swallow": 1}


def test_the_recipe_overrides_thresholds():
    assert judge("swallow", thresholds={"min_characters": 100}).reason_to_drop(WEB[:399], "json") == "few_letters"
    relaxed = {"min_characters": 100, "min_japanese_letters": 0}
    assert judge("swallow", thresholds=relaxed).reason_to_drop(WEB[:399], "json") is None
    assert judge("swallow", thresholds=relaxed).reason_to_drop(WEB[:99], "json") == "few_letters"
    assert judge("light", thresholds={"max_longest_sentence": 30}).reason_to_drop(WEB, "json") == "longest_sentence"
    assert judge("light", thresholds={"max_repeated_lines": float("inf")}).reason_to_drop(WEB, "json") is None
    assert {rule.source for rule in rules("swallow", 50, relaxed)} == {"janeox", "recipe", "Swallow v1"}
    with pytest.raises(
        JaneoxError, match=r"thresholds\.max_repeated_line: no rule has it; did you mean 'max_repeated_lines'"
    ):
        rules("light", 50, {"max_repeated_line": 1})


def test_every_rule_asks_for_a_figure_that_there_is():
    for preset in PRESETS.values():
        for rule in preset:
            assert rule.figure in WHAT or rule.figure.removesuffix("_words") in LISTS
            assert rule.least > -float("inf") or rule.most < float("inf")


def test_word_lists_of_the_recipe(tmp_path):
    (tmp_path / "own.txt").write_text("# places\n駅\n倉庫\n駅から\n", encoding="utf-8")
    own = {"places": str(tmp_path / "own.txt")}
    assert WordLists(own).count("places", "駅から駅まで、倉庫") == 3
    found = judge("light", thresholds={"max_places_words": 1}, word_lists=own).reason_to_drop(WEB, "json")
    assert found == "places_words"
    with pytest.raises(JaneoxError, match="there is no list 'place'; did you mean 'places'"):
        judge("light", thresholds={"max_place_words": 1}, word_lists=own)
    with pytest.raises(JaneoxError, match="cannot be read"):
        WordLists({"x": str(tmp_path / "none")})
    (tmp_path / "empty").write_text("#\n")
    with pytest.raises(JaneoxError, match="holds no word"):
        WordLists({"x": str(tmp_path / "empty")})
    shop = WEB + "\n" + "期間限定、送料無料。" * 6
    assert judge("llm-jp").reason_to_drop(shop, "json") == "advertising"
