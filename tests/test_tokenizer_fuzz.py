"""The short form of fuzz_tokenizer: random bytes, the same in every run."""

import random

import pytest

import fuzz_tokenizer


@pytest.mark.parametrize(("kind", "count"), [(0, 400), (1, 400), (2, 8), (3, 2), (4, 2)])
def test_random_bytes(kind, count):
    choose = random.Random(kind)
    for _ in range(count):
        first = kind + 5 * choose.randrange(50)
        rest = choose.randbytes(choose.randrange(40))
        if kind == 0 and choose.random() < 0.7:
            rest = "".join(choose.choices(fuzz_tokenizer.LINE + "\u3099\u0301\n\t▁\0", k=20)).encode()
        fuzz_tokenizer.check(bytes([first]) + rest)
