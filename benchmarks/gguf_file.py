"""Writes a model folder as GGUF, and counts the lines that llama.cpp encodes or decodes otherwise than sentencepiece.

    python -m benchmarks.gguf_file MODEL OUT.gguf [FILE …] [--kind F16]

FILE is a corpus file in any format that janeox reads. The examples of the model card and the hard strings of the tests
are added. Lines are counted apart by whether sentencepiece spells something in them as bytes.
"""

import argparse
import ctypes
import importlib.util
import itertools
from pathlib import Path

from benchmarks.machine import header
from benchmarks.rival_files import write_gguf
from benchmarks.tokenizer_agreement import read_lines
from janeox.tokenizer import Tokenizer
from tests.hard_strings import HARD_STRINGS

CARD = ["吾輩は猫である", "  吾輩は  猫である   ", "გამარჯობა  吾輩は  猫である   "]


class Vocabulary:
    """llama.cpp's reading of the tokenizer in a GGUF file."""

    def __init__(self, path: Path):
        import llama_cpp

        self.api = llama_cpp
        self.silence = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.silence, ctypes.c_void_p())
        options = llama_cpp.llama_model_default_params()
        options.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self.model:
            raise SystemExit(f"llama.cpp does not open {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)

    def encode(self, text: str) -> list[int]:
        raw = text.encode("utf-8")
        ids = (self.api.llama_token * (len(raw) + 8))()
        count = self.api.llama_tokenize(self.vocab, raw, len(raw), ids, len(ids), False, False)
        return list(ids[:count])

    def decode(self, ids: list[int]) -> str:
        buffer = ctypes.create_string_buffer(4096)
        parts = []
        for id in ids:
            size = self.api.llama_token_to_piece(self.vocab, id, buffer, len(buffer), 0, False)
            parts.append(buffer.raw[:size])
        return b"".join(parts).decode("utf-8", "replace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--kind", default="F16")
    parser.add_argument("--lines", type=int, default=100_000, help="of all files")
    asked = parser.parse_args()
    tokenizer = Tokenizer.load(asked.model)
    write_gguf(asked.model, asked.out, asked.kind, tokenizer)
    print(f"{header()}\nwrote {asked.out.name}, {asked.out.stat().st_size / 1e6:.1f} MB")
    if importlib.util.find_spec("llama_cpp") is None:
        raise SystemExit("llama_cpp: not installed")
    theirs = Vocabulary(asked.out)
    for text in CARD:
        same = "as sentencepiece" if theirs.encode(text) == tokenizer.encode(text) else "otherwise"
        print(f"{text!r}: {same}, {theirs.encode(text)}; decoded {theirs.decode(tokenizer.encode(text))!r}")
    lines = (line for file in asked.files for line in read_lines(file) if line)
    tried: dict[bool, list[int]] = {False: [0, 0, 0], True: [0, 0, 0]}
    for line in itertools.chain(HARD_STRINGS, itertools.islice(lines, asked.lines)):
        ids = tokenizer.encode(line)
        row = tried[any(isinstance(tokenizer.surfaces[id], int) for id in ids)]
        row[0] += 1
        row[1] += theirs.encode(line) != ids
        row[2] += theirs.decode(ids) != tokenizer.decode(ids)
    print(f"{'lines':<20}{'tried':>9}{'other ids':>11}{'other text':>12}")
    for spelled, name in ((False, "in pieces alone"), (True, "with bytes")):
        print(f"{name:<20}{tried[spelled][0]:>9}{tried[spelled][1]:>11}{tried[spelled][2]:>12}")


if __name__ == "__main__":
    main()
