"""One library's reading of a tokenizer folder, compared with sentencepiece's; run by tokenizer_agreement in a process.

    python tokenizer_reader.py KIND FOLDER TRIES

KIND is tokenizers, fast or slow; TRIES holds what tokenizer_agreement wrote. Prints JSON. It imports nothing of janeox,
so that transformers 4 can be asked too.
"""

import itertools
import json
import sys
from pathlib import Path

PORTION = 20_000


def main(kind: str, folder: str, tries: str) -> None:
    lines, expected, texts = (
        json.loads((Path(tries) / f"{name}.json").read_text()) for name in ("lines", "ids", "texts")
    )
    version, encode, decode = open_folder(kind, folder)
    other_ids: list[tuple[int, list[int]]] = []
    other_text: list[int] = []
    for start in range(0, len(lines), PORTION):
        portion = slice(start, start + PORTION)
        got = zip(itertools.count(start), encode(lines[portion]), expected[portion], strict=False)
        other_ids += [(at, ids) for at, ids, wanted in got if ids != wanted]
        got = zip(itertools.count(start), decode(expected[portion]), texts[portion], strict=False)
        other_text += [at for at, text, wanted in got if text != wanted]
    print(json.dumps({"version": version, "ids": other_ids, "text": other_text}))


def open_folder(kind: str, folder: str):
    """(version, encoding of many lines, decoding of many lists of ids)"""
    if kind == "tokenizers":
        import tokenizers

        plain = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")

        def encode(lines):
            return [encoding.ids for encoding in plain.encode_batch_fast(lines, add_special_tokens=False)]

        return f"tokenizers {tokenizers.__version__}", encode, plain.decode_batch
    import transformers

    loaded = transformers.AutoTokenizer.from_pretrained(folder, use_fast=kind == "fast")
    return (
        f"transformers {transformers.__version__}, {kind}",
        lambda lines: loaded(lines, add_special_tokens=False, return_attention_mask=False)["input_ids"],
        loaded.batch_decode,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
