"""Tokens a second of greedy generation, janeox and transformers in turn, float32 on this machine.

python -m benchmarks.generation [--rounds 3]

The model has 12 layers of width 768 and random weights. Both continue the same ids; that the tokens agree is checked.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from transformers import GPTNeoXForCausalLM

from benchmarks.machine import header
from janeox.config import GPTNeoXConfig, SamplingConfig
from janeox.engine.engine import Engine
from janeox.engine.torch_backend import TorchBackend
from janeox.model import GPTNeoX

NEW_TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(header())
    config = GPTNeoXConfig(32000, 768, 12, 12, 3072)
    ours = GPTNeoX(config).initialize(torch.Generator().manual_seed(0)).eval()
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder + "/model")
        theirs = GPTNeoXForCausalLM.from_pretrained(folder + "/model")
    print(f"{'batch':>5}{'janeox tokens/s':>18}{'transformers':>14}{'ratio':>8}")
    for batch in (1, 8):
        prompt = torch.randint(4, 32000, (batch, 32), generator=torch.Generator().manual_seed(batch))
        runs: dict[str, Callable[[], list[list[int]]]] = {
            "janeox": lambda prompt=prompt: janeox(ours, prompt),
            "transformers": lambda prompt=prompt: transformers(theirs, prompt),
        }
        speeds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            tokens = {}
            for name, run in runs.items():
                start = time.perf_counter()
                tokens[name] = run()
                speeds[name].append(batch * NEW_TOKENS / (time.perf_counter() - start))
            if tokens["janeox"] != tokens["transformers"]:
                raise SystemExit("the two continue the ids differently")
        one, other = (statistics.median(values) for values in speeds.values())
        print(f"{batch:>5}{one:>18.1f}{other:>14.1f}{one / other:>8.2f}", flush=True)


def janeox(model: GPTNeoX, prompt: torch.Tensor) -> list[list[int]]:
    sampling = SamplingConfig(max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, temperature=0)
    engine = Engine(TorchBackend(model, len(prompt), prompt.shape[1] + NEW_TOKENS))
    texts = [engine.submit(ids, sampling) for ids in prompt.tolist()]
    while not engine.idle:
        engine.step()
    return [text.ids for text in texts]


def transformers(model: GPTNeoXForCausalLM, prompt: torch.Tensor) -> list[list[int]]:
    lengths = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
    ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, pad_token_id=0, **lengths)
    return ids[:, prompt.shape[1] :].tolist()


if __name__ == "__main__":
    main()
