"""Fuzzing of the tokenizer: encoding, decoding, streaming, and damaged files.

    python -m tests.fuzz_tokenizer [-max_total_time=300] [other options of libFuzzer]

needs the package atheris; test_tokenizer_fuzz.py gives `check` random bytes without it. Whatever the bytes,
sentencepiece and the exported file under `tokenizers` must agree, and a damaged file must be read or refused with a
clear error.
"""

import gc
import json
import lzma
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import FunctionType

import numpy as np
import tokenizers

from janeox.config import TokenizerConfig
from janeox.errors import JaneoxError
from janeox.tokenizer import StreamDecoder, Tokenizer
from janeox.tokenizer.charsmap import steps
from janeox.tokenizer.doctor import examine
from janeox.tokenizer.export import tokenizer_json
from janeox.tokenizer.train import train_tokenizer

LINE = "吾輩は猫である。ﾜｶﾞﾊｲ </s> 鬱😀"


@cache
def small(normalization: str) -> Tokenizer:
    text = lzma.decompress((Path(__file__).parent / "data" / "aozora.txt.xz").read_bytes()).decode()[:100_000]
    return train_tokenizer([text], TokenizerConfig(1700, 0.98, normalization))


@cache
def exported(normalization: str) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(small(normalization))))


def check(data: bytes) -> None:
    """Raises where something holds that must not. The first byte says what is tried."""
    if data:
        KINDS[data[0] % len(KINDS)](small("nmt_nfkc" if data[0] & 0x80 else "identity"), data[1:])


def texts(tokenizer: Tokenizer, data: bytes) -> None:
    text = (
        data.decode("utf-8", "surrogatepass" if len(data) % 2 else "replace")
        if _decodes(data)
        else data.decode("latin-1")
    )
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    expected = tokenizer.processor.encode(whole)
    assert tokenizer.encode(text) == expected == tokenizer.batch([text])[0] == tokenizer.arrays([text])[0].tolist()
    encoding = exported(tokenizer.file.normalization).encode(whole, add_special_tokens=False)
    assert encoding.ids == expected
    ids, spans = tokenizer.encode_with_offsets(text)
    assert ids == expected and all(0 <= start <= end <= len(text) for start, end in spans)
    assert tokenizer.decode(tokenizer.encode(text, special=True), special=True) is not None
    if tokenizer.file.normalization == "identity":
        assert tokenizer.decode(ids) == whole.replace("▁", " ")


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def any_ids(tokenizer: Tokenizer, data: bytes) -> None:
    ids = [id % len(tokenizer) for id in np.frombuffer(data[: len(data) // 2 * 2], np.uint16).tolist()]
    decoder = StreamDecoder(tokenizer)
    expected = tokenizer.processor.decode(ids)
    assert tokenizer.decode(ids) == "".join(map(decoder.push, ids)) + decoder.flush() == expected


def model(tokenizer: Tokenizer, data: bytes) -> None:
    try:
        read = Tokenizer(_damaged(tokenizer.model, data))
        read.decode(read.batch([LINE])[0])
        with tempfile.TemporaryDirectory() as place:
            read.save(place)
    except JaneoxError as error:
        assert str(error)


def rules(tokenizer: Tokenizer, data: bytes) -> None:
    try:
        steps.__wrapped__(_damaged(small("nmt_nfkc").file.charsmap, data))
    except ValueError as error:
        assert "damaged normalisation rules" in str(error)


def folder(tokenizer: Tokenizer, data: bytes) -> None:
    """tokenizer.json and tokenizer_config.json are read by the doctor, and what is wrong with them is a finding."""
    with tempfile.TemporaryDirectory() as place:
        tokenizer.save(place)
        name = "tokenizer.json" if len(data) % 2 else "tokenizer_config.json"
        (Path(place) / name).write_bytes(_damaged((Path(place) / name).read_bytes(), data))
        assert json.dumps([finding.detail for finding in examine(place)])


def _damaged(file: bytes, data: bytes) -> bytes:
    """The file with a byte changed for every five bytes of `data`, or cut."""
    changed = bytearray(file)
    for at in range(0, len(data) - 4, 5):
        place = int.from_bytes(data[at : at + 4], "little") % len(changed)
        changed[place] = data[at + 4]
        if data[at + 4] == 0xFF:
            del changed[place + 1 :]
    return bytes(changed)


# Opening a folder takes a thousand times as long as encoding a line, so it is tried less often.
KINDS = (texts,) * 64 + (any_ids,) * 48 + (rules,) * 8 + (model,) * 6 + (folder,) * 2


if __name__ == "__main__":
    import atheris

    with tempfile.TemporaryDirectory() as seeds:
        for first in (0, 128, 64, 192, 112, 120, 126):
            (Path(seeds) / str(first)).write_bytes(bytes([first]) + LINE.encode())
        for found in gc.get_objects():
            if isinstance(found, FunctionType) and (found.__module__ or "").startswith("janeox.tokenizer"):
                atheris.instrument_func(found)
        atheris.Setup([*sys.argv, "-len_control=0", "-max_len=400", seeds], check)
        atheris.Fuzz()
