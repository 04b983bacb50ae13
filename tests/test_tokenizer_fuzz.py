"""The short form of fuzz_tokenizer: random bytes, the same in every run."""

import random

import pytest

import fuzz_tokenizer


@pytest.mark.parametrize(
    ("kind", "count"), [("texts", 400), ("any_ids", 400), ("model", 8), ("rules", 2), ("folder", 2)]
)
def test_random_bytes(kind, count):
    choose = random.Random(kind)
    firsts = [at for at in range(256) if fuzz_tokenizer.KINDS[at % 128].__name__ == kind]
    for _ in range(count):
        first = choose.choice(firsts)
        rest = choose.randbytes(choose.randrange(40))
        if kind == "texts" and choose.random() < 0.7:
            rest = "".join(choose.choices(fuzz_tokenizer.LINE + "\u3099\u0301\n\t▁\0", k=20)).encode()
        fuzz_tokenizer.check(bytes([first]) + rest)
