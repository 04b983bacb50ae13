"""Strings on which tokenizers are known to part ways, and generated lines made of the same stuff."""

import random

HARD_STRINGS = [
    "",
    " ",
    "   ",
    "\n",
    "\t",
    "a\nb\r\nc\td\n\n",
    "吾輩は猫である",
    "  吾輩は  猫である   ",
    "გამარჯობა  吾輩は  猫である   ",
    "　全角の字下げ　と　空白　",
    "鬱蒼とした森で𠮟る",
    "👨‍👩‍👧‍👦と👩🏽‍🚀と🇯🇵と❤️と👍🏿",
    "ﾜｶﾞﾊｲﾊﾈｺﾃﾞｱﾙ ﾊﾟﾋﾟﾌﾟ ｶﾞｷﾞｸﾞ",
    "か\u3099き\u3099は\u309aと e\u0301 A\u030a q\u0307\u0323 n\u0303",
    "\u0301先頭の結合文字",
    "葛\U000e0100飾区と辻\ufe00",
    "１２３４５６７８９０ＡＢＣａｂｃ（％）？！：",
    "①②③㈱㍻㌔㍉Ⅳⅷ½²℃㎏ﬁ",
    "\x00nul\x00\x00",
    "\x01\x02\x03\x1b[31m\x7f\x80\x85\x9f",
    "\ue000\uf8ff\U000f0000\U0010fffd",
    "\u0378\U000e0fff\ufdd0\uffff\U0001fffe",
    "\ufeffBOM と \u200bゼロ幅\u200c\u200d\u2060\u00ad",
    "\u00a0\u2003\u202f\u3000\u2028\u2029 空白いろいろ",
    "\ufffd 置換文字 \ufffd\ufffd",
    "literal ▁ and ▁▁ 下線",
    "</s>",
    "<s>吾輩は</s>猫[PAD][UNK][CLS][SEP][MASK]<unk><pad><NL>である",
    "ユーザー: こんにちは<NL>システム: ",
    "</s></s> </s>\n</s>",
    "<0x41><0xE3><0x81><0x82>",
    "<<0x41>> <0x4 1> <0x410> </ s> < /s>",
    "ーーーーーーーーーーーーーーーーーーーーー",
    "・・・・・・・・・・・…………………………。。。。。。。。",
    "-" * 97,
    "." * 101,
    "あ" * 300,
    "w" * 257,
    " " * 130,
    "😀" * 65,
    "!\"#$%&'()*+,-./0123456789:;<=>?@[\\]^_`{|}~",
    "The quick brown fox  jumps over the lazy dog.",
    "https://example.jp/?q=%E7%8C%AB&x=1#frag",
    "中文简体字 한국어 العربية עברית ไทย हिन्दी Ελληνικά",
    "한글 자모 \u1112\u1161\u11ab",
    "゛゜ヽヾゝゞ々〻〱〲〳〵",
    "㊗️㊙️🈁🅰️",
]

_ATOMS = [text for text in HARD_STRINGS if 0 < len(text) < 12] + [
    *"、。「」ーっゃのはがをにへとも ab<>/s[]0x\n\t　▁・…—―-.",
    *(
        "です",
        "ます",
        "である",
        "</s>",
        "[PAD]",
        "<0x0A>",
        "ｶﾞ",
        "は\u309a",
        "👩‍👧",
        "𠮷",
        "\u0300",
        "\ue001",
        "\x00",
        "  ",
    ),
]


def generated_lines(count: int, seed: int) -> list[str]:
    """`count` random mixtures of the hard strings' parts, runs of one part and arbitrary code points."""
    random_ = random.Random(seed)
    lines = []
    for _ in range(count):
        parts = []
        for _ in range(random_.randrange(1, 12)):
            kind = random_.random()
            if kind < 0.6:
                parts.append(random_.choice(_ATOMS))
            elif kind < 0.75:
                parts.append(random_.choice(_ATOMS) * random_.randrange(2, 20))
            else:
                parts.append("".join(map(_any_character, [random_] * random_.randrange(1, 6))))
        lines.append("".join(parts))
    return lines


def _any_character(random_: random.Random) -> str:
    ranges = [(0, 0x250), (0x300, 0x370), (0x2000, 0x2100), (0x3000, 0x3400), (0x4E00, 0xA000), (0xFE00, 0x10000),
              (0x1F000, 0x1FB00), (0, 0xD800), (0xE000, 0x110000)]  # fmt: skip
    start, stop = random_.choice(ranges)
    return chr(random_.randrange(start, stop))
