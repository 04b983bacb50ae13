"""Draws the documents that benchmarks/labelled/labels.tsv judges: python -m benchmarks.draw_labelled DATA

DATA holds cc100/ja.txt.xz, mc4/c4-ja.tfrecord-*.json.gz and wiki/*.json.gz. Three strata, the same every time:
random (those whose texts have the smallest SHA-256), odd (the most extreme in a figure that rules look at) and planted
(junk made from real documents and from small templates, which is to be dropped by construction).
"""

import hashlib
import itertools
import json
import lzma
import random
import sys
from pathlib import Path

from janeox.corpus.document import Document
from janeox.corpus.figures import Figures
from janeox.corpus.read import BadRows, read_documents

ROOT = Path(__file__).parent.parent
TEXTS = ROOT / "benchmarks/labelled/texts.jsonl.xz"
CHARS = 1500
"""A document is cut at the last line or sentence that ends before this; labels and rules see what is left."""
RANDOM = {"mc4": (160, 9999), "wiki": (60, 5000), "cc100": (40, 800)}
"""Documents of each source, drawn among how many of a file's first."""
ODD = (("japanese", 16, 1), ("hiragana", 12, 1), ("repeated_lines", 10, -1), ("punctuated_lines", 8, 1),
       ("katakana_letters", 6, -1))  # fmt: skip
PLANTED = 6
"""Of each kind."""
MENU = """ホーム 会社概要 製品情報 採用情報 お問い合わせ サイトマップ 新着情報 よくある質問 店舗一覧 アクセス ログイン
会員登録 利用規約"""
GOODS = "腕時計 財布 化粧水 掃除機 スニーカー 枕 イヤホン 炊飯器 カーテン 自転車"
CHINESE = """中华人民共和国的政治体制和经济制度以及文化生活简介如下。 这个城市位于长江下游，历史悠久，人口众多。
我们提供最优质的产品和服务，欢迎新老客户来电咨询。 北京时间今天上午，代表团乘专机抵达机场，受到热烈欢迎。
本公司成立于一九九八年，主要从事电子元件的生产与销售。 学生们认真学习，老师们耐心讲解，课堂气氛十分活跃。"""

CODE = """for (int i = 0; i < n; ++i) { sum += values[i]; }
    return new HashMap<String, List<Integer>>();
def total(rows): return sum(row.price for row in rows)
SELECT name, count(*) FROM orders WHERE status = 'open' GROUP BY name;
<div class="item"><a href="/list?page=2">next</a></div>
if err != nil { return nil, fmt.Errorf("open %s: %w", path, err) }
const items = await fetch(`/api/items/${id}`).then((r) => r.json());
#include <vector>
    print(f"{name:>10} {value:8.3f}", file=sys.stderr)"""


def documents(data: Path, source: str, most: int) -> list[Document]:
    files = {"mc4": [0, 5], "wiki": [0], "cc100": [0]}[source]
    paths = sorted(path for path in (data / source).iterdir() if path.is_file())
    return [d for file in files for d in itertools.islice(read_documents(paths[file], source, BadRows()), most)]


def cut(text: str) -> str:
    if len(text) <= CHARS:
        return text
    end = max(text.rfind("\n", 0, CHARS), text.rfind("。", 0, CHARS) + 1)
    return text[: end if end > CHARS // 2 else CHARS]


def planted(real: list[str], rng: random.Random) -> list[tuple[str, str]]:
    """Kind and text."""
    found: list[tuple[str, str]] = []
    menu, goods, chinese = MENU.split(), GOODS.split(), CHINESE.split()
    code, licence = CODE.split("\n"), (ROOT / "LICENSE").read_text(encoding="utf-8")
    for number in range(PLANTED):
        text = rng.choice(real)
        price = f"{rng.randrange(900, 9900):,}円（税込）"
        shop = [f"【送料無料】{rng.choice(goods)} 激安 特別価格 {price} 在庫あり カートに入れる"]
        made = {
            "menu": "\n".join(rng.choices(menu, k=40)),
            "shop": "\n".join(shop * 3 + [f"{rng.choice(goods)}が最安値！今すぐ購入で割引。" for _ in range(12)]),
            "keywords": " ".join(f"{rng.choice(goods)} {rng.choice(('激安', '通販', '口コミ'))}" for _ in range(60)),
            "repeated": (text[:60] + "\n") * 12,
            "mojibake": text[:600].encode("utf-8").decode("cp932", "replace"),
            "shuffled": "".join(rng.sample(text[:600], len(text[:600]))),
            "teasers": "\n".join(f"{line[:28]}…" for line in rng.sample(real, 20)).replace("\n\n", "\n"),
            "chinese": "".join(rng.choices(chinese, k=8)),
            "code": "\n".join(rng.choices(code, k=30)),
            "english": licence[60 * number :],
        }  # fmt: skip
        found += made.items()
    return found


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    data = Path(sys.argv[1])
    rows = []
    for source, (number, most) in RANDOM.items():
        drawn = sorted(documents(data, source, most), key=lambda d: hashlib.sha256(d.text.encode()).hexdigest())
        rows += [("random", document) for document in drawn[:number]]
    random_texts = {document.text for _, document in rows}
    measured = [(d, Figures(d.text)) for d in documents(data, "mc4", 9999) if d.text not in random_texts]
    used: set[str] = set()
    for figure, number, sign in ODD:
        order = sorted(measured, key=lambda pair: (sign * pair[1][figure], pair[0].id))
        chosen = [document for document, _ in order if document.id not in used][:number]
        used |= {document.id for document in chosen}
        rows += [("odd", document) for document in chosen]
    real = [document.text for _, document in rows if len(document.text) > 400]
    for kind, text in planted(real, random.Random(0)):
        rows.append(("planted", Document(text, kind, kind, "", "json")))
    table = [
        {"stratum": stratum, "source": d.source, "id": d.id, "kind": d.kind, "text": cut(d.text)} for stratum, d in rows
    ]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
    TEXTS.write_bytes(lzma.compress(content.encode(), preset=9))
    print(f"{TEXTS}: {len(table)} documents, {TEXTS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
