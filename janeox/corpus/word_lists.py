"""Lists of words whose frequent use marks a page: small ones of our own, and any that the recipe names.

The lists here were written for janeox from what advertising and adult pages in Japanese say of themselves; nothing was
copied from published lists. They name the trade, not the acts, so an encyclopedia's article seldom trips over them.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from janeox.errors import JaneoxError
from janeox.recipe import nearest

LISTS = {
    "advertising": """
送料無料 期間限定 数量限定 今だけ お買い得 特別価格 最安値 激安 格安 割引クーポン クーポンコード ポイント還元
セール開催中 大特価 在庫あり 在庫切れ カートに入れる 買い物かご 今すぐ購入 今すぐ申し込む 無料登録 資料請求 無料体験
会員登録はこちら 詳しくはこちら 即日発送 代引き 返品不可 メーカー希望小売価格 税込価格 通常価格 販売価格
レビューを書く お気に入りに追加 楽天市場 Amazonで見る アフィリエイト スポンサーリンク 広告掲載 おすすめランキング
口コミ評判 稼げる 副業 必ず儲かる 融資 即日融資 カードローン 買取価格 高価買取 見積もり無料
""",
    "adult": """
アダルト 成人向け 18禁 １８禁 R18 18歳未満 無修正 風俗 デリヘル ソープランド 出会い系 セフレ 人妻 熟女 素人動画
エロ動画 エロ画像 アダルトサイト ライブチャット 援交 援助交際 不倫相手 ヌード AV女優 個室ヌキ キャバクラ
ホストクラブ ラブホテル テレクラ ツーショットダイヤル
""",
}


class WordLists:
    """How often the words of a list occur in a text.

    Args:
        files: list name → file with a word a line, `#` before comments; replaces the list of that name or adds one.

    Raises:
        JaneoxError: a file is missing, not UTF-8, or holds no word.
    """

    def __init__(self, files: Mapping[str, str]):
        words = {name: text.split() for name, text in LISTS.items()}
        words |= {name: _read(Path(file).expanduser(), name) for name, file in files.items()}
        # The longest first, so that a word inside another counts once.
        self._patterns = {
            name: re.compile("|".join(re.escape(word) for word in sorted(set(own), key=lambda w: (-len(w), w))))
            for name, own in words.items()
        }

    def check(self, name: str) -> None:
        """Raises JaneoxError if there is no list of this name."""
        if name not in self._patterns:
            raise JaneoxError(f"corpus.word_lists: there is no list {name!r}{nearest(name, self._patterns)}")

    def count(self, name: str, text: str) -> int:
        """Occurrences that do not overlap."""
        return len(self._patterns[name].findall(text))


def _read(path: Path, name: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise JaneoxError(f"corpus.word_lists.{name} = {str(path)!r}: cannot be read ({error})") from error
    words = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not words:
        raise JaneoxError(f"corpus.word_lists.{name} = {str(path)!r}: holds no word; write one a line")
    return words
