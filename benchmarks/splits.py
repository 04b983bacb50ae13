"""Texts cut into tokens at random places, byte by byte in part: what the engine shows must be the text up to its stop.

python -m benchmarks.splits TOKENIZER [--number 100000]

Checks the parts that a reader sees one after another (never a broken character, never a beginning of a stop string
that turns out to be one) and their sum, with `<NL>` as a newline as in chats.
"""

import argparse
import random
import time

from janeox.config import SamplingConfig
from janeox.dialogue import NewlineDecoder
from janeox.engine.text import Generated, Writer
from janeox.tokenizer import Tokenizer

CHARACTERS = [*"あ漢𠮟ｶﾞ👨‍👩‍👧éaB 。、\t\n<>NL/s", "<NL>", "<N", "</s>", "ユーザー: ", "システム: "]
STOPS = ["<NL>ユーザー: ", "。", "👨‍👩", "あ漢", "NL>", "\n\n", "決して現れない"]


def check(tokenizer: Tokenizer, number: int, seed: int = 0) -> int:
    """Tries `number` random splits; returns how many of the texts held their stop string.

    Raises:
        AssertionError: one is shown otherwise than it is.
    """
    pick = random.Random(seed)
    bytes_of = {piece: id for id, piece in enumerate(tokenizer.surfaces) if isinstance(piece, int)}
    num_stopped = 0
    for _ in range(number):
        whole, stop = "".join(pick.choices(CHARACTERS, k=pick.randint(1, 40))), pick.choice(STOPS)
        generated = Generated([0], SamplingConfig(stop=(stop,)))
        writer, newlines, shown = Writer(generated, tokenizer), NewlineDecoder(), ""
        expected = whole.partition(stop)[0]
        for id in cut(whole, tokenizer, bytes_of, pick):
            before = len(generated.text)
            stopped = writer.push(id)
            shown += newlines.push(generated.text[before:])
            assert expected.startswith(generated.text) and expected.replace("<NL>", "\n").startswith(shown)
            if stopped:
                break
        before = len(generated.text)
        writer.close()
        shown += newlines.push(generated.text[before:]) + newlines.flush()
        assert generated.text == expected and shown == expected.replace("<NL>", "\n"), (whole, stop)
        num_stopped += stop in whole
    return num_stopped


def cut(text: str, tokenizer: Tokenizer, bytes_of: dict[int, int], pick: random.Random) -> list[int]:
    """Ids that spell `text`, with token borders where a model may put them: anywhere, and inside characters."""
    ids: list[int] = []
    while text:
        length = pick.randint(1, 8)
        part, text = text[:length], text[length:]
        spelled = pick.random() < 0.4
        ids += [bytes_of[byte] for byte in part.encode()] if spelled else tokenizer.encode(part)
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("--number", type=int, default=100_000)
    asked = parser.parse_args()
    start = time.perf_counter()
    num_stopped = check(Tokenizer.load(asked.tokenizer), asked.number)
    print(f"{asked.number:,} splits shown as they are, {num_stopped:,} of them up to a stop string", end="")
    print(f"; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
