"""Whether the engines that are compared compute the same: their logits beside janeox's own in float32.

    python -m benchmarks.rival_logits FOLDER [--only janeox8,llama8]

At the tiny shape of benchmarks.cpu_speed, whose files the same code writes: two prompts of 24 tokens, then 8 steps with
the cache. `prompt` and `steps` are |difference| / |logits|. A mask, rotation, activation or order of weights that is
not the model's gives differences near 1; the command then fails.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch

from benchmarks import rivals
from benchmarks.cpu_speed import ENGINES, SHAPES, installed, relative, write_missing
from janeox.model import GPTNeoX

PROMPT, STEPS = 24, 8
LIMITS = {"16": 0.02, "8": 0.1, "4": 0.4}  # by the last digits of an engine's name; what is wrong is far above them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(ENGINES), help="engines, with commas")
    options = parser.parse_args()
    folder, names = options.folder / "tiny", [name for name in options.only.split(",") if installed(name)]
    write_missing(folder, SHAPES["tiny"], names)
    pick = random.Random(0)
    texts = [[pick.randrange(SHAPES["tiny"].vocab_size) for _ in range(PROMPT + STEPS)] for _ in range(2)]
    model = GPTNeoX.from_pretrained(folder / "model", dtype=torch.float32)
    expected = model(torch.tensor(texts))[:, PROMPT - 1 :].transpose(0, 1).numpy()  # (1 + STEPS, B, V)
    print(f"logits beside float32, tiny shape\n{'':<16}{'prompt':>10}{'steps':>10}{'same first choice':>20}")
    wrong = []
    for name in names:
        kind, _, file, _ = ENGINES[name]
        engine = getattr(rivals, kind)(folder / file, 1)
        found = engine.logits([text[:PROMPT] for text in texts], [text[PROMPT:] for text in texts])
        errors = relative(found[0], expected[0]), relative(found[1:], expected[1:])
        same = np.mean(found.argmax(2) == expected.argmax(2))
        print(f"{name:<16}{errors[0]:>10.2g}{errors[1]:>10.2g}{same:>20.0%}", flush=True)
        limit = next(limit for bits, limit in LIMITS.items() if name.endswith(bits))
        if not max(errors) < limit:
            wrong.append(name)
    if wrong:
        raise SystemExit(f"{', '.join(wrong)}: not the model that janeox runs")


if __name__ == "__main__":
    main()
