"""What is taken out of a text, as pure functions. Whether a document stays is decided in `presets.py`.

Rules named "rinna" are what rinna's published corpus scripts (rinnakk/japanese-pretrained-models, src/corpus) do.
"""

import re
import unicodedata

from janeox.corpus.document import Document


def clean(document: Document) -> str:
    """The document's text with every rule for its kind applied; may be empty."""
    text = normalize(document.text)
    if document.kind == "wiki":
        return normalize(without_wiki_residue(text))
    return without_header_and_footer(without_page_furniture(text))


# --- Normalisation -------------------------------------------------------------------------------------------------

# Every kind of line break but "\n"; str.splitlines knows the same ones.
_LINE_BREAK = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Control characters, and marks that are invisible and say nothing in Japanese: soft hyphen, zero-width space and
# no-break space, direction marks. The joiners U+200C and U+200D stay: emoji and some scripts are spelled with them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
_SPACES = re.compile("[ \t\xa0\u2000-\u200a\u202f]+")
_WIDE_SPACES = re.compile(" *\u3000[ \u3000]*")
# か + combining ゛ → が, as file names and texts from macOS spell it.
_LOOSE_VOICING = re.compile("[\u3041-\u30ff][\u3099\u309a]")


def normalize(text: str) -> str:
    """One spelling for what looks the same: line breaks, spaces, voiced kana; no empty lines, no invisible characters.

    A run of spaces becomes one space, or one U+3000 where it holds one; none are left at the edges of a line, where
    they are layout. Not NFKC: that would fold ？ and ①, which the tokenizer keeps and a model should learn to write.
    """
    text = _INVISIBLE.sub("", _LINE_BREAK.sub("\n", text))
    text = _WIDE_SPACES.sub("\u3000", _SPACES.sub(" ", text))
    text = _LOOSE_VOICING.sub(lambda pair: unicodedata.normalize("NFC", pair[0]), text)
    return "\n".join(line for line in map(str.strip, text.split("\n")) if line)


# --- Wikipedia -----------------------------------------------------------------------------------------------------

# [12], [注 1], [要出典], [疑問点 – ノート], [編集]; rinna.
_REFERENCE = re.compile(
    r"\[(?:\d{1,3}|(?:注|註|脚注|出典|要|疑問|独自研究|信頼性|誰|いつ|どこ|どれ|編集|note|nb)[^\[\]\n]{0,30})\]"
)
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_FORMULA = re.compile(r"\{?\\displaystyle")
_BRACE = re.compile("[{}]")
_NO_JAPANESE = re.compile("[^\u3041-\u9fff\n]*")
# Notes stand at a page's end, each behind its backlink: " ^ 『善の研究』 p. 12. ^ a b …"; rinna. The caret of a power
# has a letter or digit of a formula before it.
_FOOTNOTES = re.compile(r"(?:^|(?<=[^\x00-\x7f]\s)|(?<=\.\s))\^ (?=\D)", re.MULTILINE)
# What references and readings in other scripts leave behind when they go.
_HOLLOW = re.compile(r"（[\s、，,；;：:]*）|\([\s,;:]*\)")


def without_wiki_residue(text: str) -> str:
    """Without reference marks, templates, TeX behind formulas, the notes at the end, and brackets emptied by that."""
    before = ""
    while before != text:  # innermost first: templates nest
        before, text = text, _TEMPLATE.sub("", text)
    text = _without_formulas(text)
    notes = _FOOTNOTES.search(text, len(text) // 4)  # before that it is hardly the end
    if notes:
        text = text[: notes.start()]
    return _HOLLOW.sub("", _REFERENCE.sub("", text))


def _without_formulas(text: str) -> str:
    kept, end = [], 0
    for formula in _FORMULA.finditer(text):
        if formula.start() >= end:
            kept.append(text[end : formula.start()])
            end = _closed(text, formula.start()) or _NO_JAPANESE.match(text, formula.end()).end()  # type: ignore[union-attr]
    return "".join([*kept, text[end:]])


def _closed(text: str, start: int) -> int:
    """End of the braces that open at `start`; 0 if none open there or they do not close within 2000 characters."""
    depth = 0
    for brace in _BRACE.finditer(text, start, start + 2000) if text[start] == "{" else ():
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return 0


# --- Web pages -----------------------------------------------------------------------------------------------------

_FURNITURE = re.compile(
    r"""(?x) (?i:copyright\b|\(c\)\s|©).* | .*(?i:all\ rights\ reserved)\.?
    | https?://[!-~]+
    | (?:(?:トップ|ホーム|ページ(?:の(?:先頭|トップ))?|(?:前|次)の(?:ページ|記事)|トップページ|前|次|元の?ページ)
        (?:へ|に)?(?:戻る|もどる|移動)?
        |続きを(?:読む|見る)|もっと(?:見る|読む)|メニュー|目次|ログイン|ログアウト|新規登録|会員登録|お問い合わせ|サイトマップ
        |プライバシーポリシー|利用規約|シェア(?:する)?|ツイート(?:する)?|いいね！?|印刷(?:する)?|編集|検索)
      [\ \u3000>›»＞…]*
    """
)
_STEP = re.compile(r" [>›»＞] (?!\d)")  # ホーム > 製品 > 一覧, but not a > 0


def without_page_furniture(text: str) -> str:
    """Without lines that belong to the page around a text: breadcrumbs, menu words, bare URLs, copyright lines.

    Only a line that is nothing else goes; the same words inside a sentence stay.
    """

    def is_furniture(line: str) -> bool:
        breadcrumbs = len(line) <= 100 and "。" not in line and len(_STEP.findall(line)) >= 2
        return breadcrumbs or _FURNITURE.fullmatch(line) is not None

    return "\n".join(line for line in text.split("\n") if not is_furniture(line))


# What stands around a post: when, by whom, under which tags, how many comments; or a bar of links. In the middle of a
# text such lines may belong to it, so they go at its ends only.
_POST = re.compile(
    r"""(?x) (?:カテゴリー?|タグ|投稿者|(?:投稿|作成|更新|公開)日時?|最終更新日?時?|(?i:posted|tags?|category|updated))
        \s*(?:[:：]|\b(?i:by|on)\b)[^。]{0,60}
    | (?:コメント|トラックバック|ブックマーク|いいね)\s*[:：]?\s*[（(]?\d+件?[)）]?
    | (?:\d{4}[年/.-]\s?\d{1,2}[月/.-]\s?\d{1,2}日?)(?:\s*[（(][月火水木金土日][)）])?(?:\s*\d{1,2}:\d{2}(?::\d{2})?)?
    | [^。|｜]{1,24}(?:[|｜][^。|｜]{1,24}){2,}
    """
)


def without_header_and_footer(text: str) -> str:
    """Without the lines at a text's beginning and end that tell of the post or page and not of its matter."""
    lines = text.split("\n")
    first, end = 0, len(lines)
    while first < end and _is_of_the_post(lines[first]):
        first += 1
    while end > first and _is_of_the_post(lines[end - 1]):
        end -= 1
    return "\n".join(lines[first:end])


def _is_of_the_post(line: str) -> bool:
    return len(line) <= 100 and _POST.fullmatch(line) is not None
