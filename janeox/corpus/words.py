"""Words without a dictionary: where the script changes, and in hiragana at the words that hold sentences together.

The rules of FineWeb-2 count words as Sudachi cuts them. This is not Sudachi, but small and fast: a run of one script is
a word, kanji go in pairs, and a run of hiragana is cut at function words (the longest that fits): 食 べ て い まし た.
How near it comes to Sudachi: `python -m benchmarks.corpus`.
"""

import re

_FUNCTION_WORDS = """
の に を は が と で も へ や か ね よ な し て た だ ず ば さ れ い から まで より など だけ しか ほど ぐらい
くらい ばかり さえ でも とも ので のに けど けれど けれども ながら つつ です ます まし ませ でし でしょ ましょ ない
なかっ なく なけれ なら なり なる なっ なれ たい たく たら たり れば れる られ られる せる させ させる する した
して すれ しよ さん ある あり あっ あろ いる いう いっ いた よう そう こと もの ため とき ところ わけ はず という
として とっ つい おい よっ より これ それ あれ この その あの ここ そこ どの どう また しかし そして さらに ただし
でき できる できれ ください くださ いただ ござい べき らしい みたい ほしい おり おる しまう しまっ しまい ほか まま
うち たち ども
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())

_FUNCTION = "|".join(sorted(FUNCTION_WORDS, key=lambda word: (-len(word), word)))
_HIRAGANA, _KATAKANA, _KANJI, _DIGIT = "ぁ-ゖ", "ァ-ヺー-ヿｦ-ﾟ", "々〇〻㐀-鿿豈-\ufaff\U00020000-\U0003ffff", "0-9０-９"
_LETTER = f"[^\\W\\d_{_HIRAGANA}{_KATAKANA}{_KANJI}\U00010000-\U0010ffff]"
CLASSES = {
    "letter": _LETTER,
    "hiragana": f"[{_HIRAGANA}]",
    "katakana": f"[{_KATAKANA}]",
    "kanji": f"[{_KANJI}]",
    "digit": f"[{_DIGIT}]",
    "white": r"\s",
}
"""Characters that make words together; any other is a word of its own, also what lies beyond the kanji planes."""

_WORD = re.compile(
    f"{_FUNCTION}|(?:(?!{_FUNCTION})[{_HIRAGANA}])+|[{_KATAKANA}]+|[{_KANJI}]{{1,2}}|[{_DIGIT}]+|{_LETTER}+|\\S"
)


def words(text: str) -> list[str]:
    """The words and signs of a text in their order; white space only separates."""
    return _WORD.findall(text)
