"""What is masked, its near misses, and the setting that turns it on; NFKC as the other setting that changes text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from janeox.config import CorpusConfig
from janeox.corpus.cleaner import Cleaner
from janeox.corpus.document import Document
from janeox.corpus.personal import masked


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("連絡先はtaro.yamada+x@mail.sample.co.jpまで。", "連絡先はuser@example.comまで。"),
        ("電話03-1234-5678、090-1234-5678。", "電話03-1234-XXXX、090-1234-XXXX。"),
        ("℡ 0120-123-4567 または (03) 1234-5678", "℡ 0120-123-XXXX または (03) 1234-XXXX"),
        ("電話03（1234）5678 +81 3 1234 5678", "電話03（1234）XXXX +81 3 1234 XXXX"),
        ("接続元は8.8.4.4、内側は192.168.0.1です。", "接続元は192.0.2.1、内側は192.168.0.1です。"),
        # Near misses: a decorator, a date, a product number, a version, a postcode, a price.
        ("@property と a@b を使う", "@property と a@b を使う"),
        ("2020-01-23、ISBN 4-00-112233-4、型番00-1-2345", "2020-01-23、ISBN 4-00-112233-4、型番00-1-2345"),
        ("版は1.2.3.999と10.15.7、〒100-0001、1,234円", "版は1.2.3.999と10.15.7、〒100-0001、1,234円"),
    ],
)
def test_masked(raw, wanted):
    assert masked(raw) == wanted


@settings(deadline=None)
@given(st.text(st.sampled_from("a@.-0189(（）)+ 漢あ"), max_size=60))
def test_masking_is_settled(text):
    assert masked(masked(text)) == masked(text)


def test_masking_and_nfkc_are_settings():
    document = Document("メールは、ａ＠example.jpか x@sample.jp まで①。", "s", "1", "f:1", "text")
    assert Cleaner(CorpusConfig()).clean(document) == document.text
    assert "user@example.com" in Cleaner(CorpusConfig(mask_personal=True)).clean(document)
    folded = Cleaner(CorpusConfig(normalization="nfkc")).clean(document)
    assert folded == "メールは、a@example.jpか x@sample.jp まで1。"


@pytest.mark.parametrize("hard", ["a.", "a@", "0-", "1.", "+81 ", "a@a."])
def test_no_text_takes_forever(hard):
    masked(hard * 20_000)
