"""Generation on one NVIDIA GPU: logits beside transformers, then speed beside it, and its share of a limit.

    python -m benchmarks.gpu_generation [--rounds 3]     the 3.6B shape, random weights, bfloat16, 8 and 4 bits
    python -m benchmarks.gpu_generation --toy            the same code at a tiny shape on a CPU, by Triton's interpreter

Not run on a GPU yet: none was at hand when it was written. --toy checks kernels and logits (it needs the `triton`
package) and says nothing about speed. The limits are measured first: reading memory for steps, a matrix product of
8192 x 8192 for prompts. `errors` are |difference| / |logits| to transformers in float32, after a prompt and over 8
steps with the cache; `own`, of both, to torch on the same rounded weights.
"""

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.machine import header
from janeox.config import GPTNeoXConfig, SamplingConfig
from janeox.engine.backend import Row
from janeox.engine.engine import Engine
from janeox.engine.gpu_backend import GpuBackend
from janeox.engine.gpu_weights import quantise
from janeox.model import GPTNeoX

TOY = GPTNeoXConfig(512, 128, 2, 2, 256, max_position_embeddings=64, initializer_range=0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--toy", action="store_true")
    options = parser.parse_args()
    if options.toy:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        raise SystemExit("no GPU here; --toy runs the code on the CPU")
    device = torch.device("cpu" if options.toy else "cuda")
    config, length = (TOY, 40) if options.toy else (GPTNeoXConfig(), 2048)
    print(header())
    print("CPU" if options.toy else torch.cuda.get_device_name(device))
    model = random_model(config, device, torch.float32 if options.toy else torch.bfloat16)
    theirs = transformers_model(model)
    bandwidth, peak = limits(device)
    print(f"limits: read {bandwidth / 1e9:,.0f} GB/s, {peak / 1e12:,.1f} TFLOP/s in {model.dtype}")
    contenders: dict[str, Contender] = {"transformers": Theirs(theirs)}
    for bits in (16, 8, 4):
        name, own = f"janeox {bits}", model if bits == 16 else quantise(copy.deepcopy(model), bits)
        start = time.perf_counter()
        contenders[name] = ours = Ours(own, 3 if options.toy else 64, length)
        ours.generate(1, 2)
        sync(device)
        print(f"{name}: ready in {time.perf_counter() - start:.1f} s (kernels compiled and tuned, first graph)")
    check(contenders, theirs)
    speeds(contenders, options.rounds, bandwidth, peak, options.toy)
    graphs = [ours.backend.graphs for ours in contenders.values() if isinstance(ours, Ours)]
    print("graphs replayed:", ", ".join(str(graph.replays) if graph else "none on a CPU" for graph in graphs))
    if any(graph and graph.replays == 0 for graph in graphs):
        raise SystemExit("no graph was replayed")


def random_model(config: GPTNeoXConfig, device: torch.device, dtype: torch.dtype) -> GPTNeoX:
    with device:
        model = GPTNeoX(config).to(dtype).requires_grad_(False).eval()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        parameter.normal_(float("norm" in name and name.endswith("weight")), config.initializer_range)
    return model


def transformers_model(model: GPTNeoX) -> torch.nn.Module:
    """Theirs, over the same tensors."""
    from transformers import GPTNeoXConfig as TheirConfig
    from transformers import GPTNeoXForCausalLM

    with model.device:
        theirs = GPTNeoXForCausalLM(TheirConfig(**model.config.to_hf(str(model.dtype).removeprefix("torch."))))
    weights = model.state_dict()
    weights["lm_head.weight"] = weights["embed_out.weight"]  # its name in memory since transformers 5
    theirs.load_state_dict({name: weights[name] for name in theirs.state_dict()}, assign=True)
    return theirs.eval()


class Theirs:
    def __init__(self, model: torch.nn.Module):
        self.model = model

    def generate(self, rows: int, count: int) -> None:
        ids = torch.tensor(prompts(rows), device=self.model.device)
        ones = torch.ones_like(ids)
        self.model.generate(
            ids, attention_mask=ones, do_sample=False, min_new_tokens=count, max_new_tokens=count, pad_token_id=0
        )

    @torch.inference_mode()
    def prefill(self, ids: list[int]) -> None:
        self.model(torch.tensor([ids], device=self.model.device), logits_to_keep=1)

    @torch.inference_mode()
    def logits(self, texts: list[list[int]], prompt: int) -> Tensor:
        return self.model(torch.tensor(texts, device=self.model.device)).logits[:, prompt - 1 :].float()


class Ours:
    def __init__(self, model: GPTNeoX, rows: int, capacity: int):
        self.backend = GpuBackend(model, rows, capacity)

    def generate(self, rows: int, count: int) -> None:
        engine = Engine(self.backend)
        sampling = SamplingConfig(max_new_tokens=count, min_new_tokens=count, temperature=0)
        for prompt in prompts(rows):
            engine.submit(prompt, sampling)
        while not engine.idle:
            engine.step()

    def prefill(self, ids: list[int]) -> None:
        self.backend.forward([Row(0, 0, ids)])

    @torch.inference_mode()
    def exact(self, texts: list[list[int]], prompt: int) -> Tensor:
        """The same by torch, on the same weights in float32."""
        model = copy.deepcopy(self.backend.model).float()
        return model(torch.tensor(texts, device=model.device))[:, prompt - 1 :]

    def logits(self, texts: list[list[int]], prompt: int) -> Tensor:
        """(B, 1 + steps, V); the prompt in two portions, then step by step."""
        half = prompt // 2
        self.backend.forward([Row(slot, 0, text[:half]) for slot, text in enumerate(texts)])
        found = [self.backend.forward([Row(slot, half, text[half:prompt]) for slot, text in enumerate(texts)])]
        for place in range(prompt, len(texts[0])):
            found.append(self.backend.forward([Row(slot, place, [text[place]]) for slot, text in enumerate(texts)]))
        return torch.stack(found, 1)


Contender = Theirs | Ours


def prompts(rows: int) -> list[list[int]]:
    return [[(row * 7 + place * 13) % 500 + 5 for place in range(32)] for row in range(rows)]


def check(contenders: dict[str, Contender], theirs: torch.nn.Module) -> None:
    texts = [[(row * 31 + place * 17) % 500 + 5 for place in range(40)] for row in range(3)]
    exact = copy.deepcopy(theirs).float()
    expected = Theirs(exact).logits(texts, 32)
    del exact
    wrong, allowed = [], 0.0
    print(f"\n{'errors':<16}{'prompt':>10}{'steps':>10}{'own':>10}")
    for name, contender in contenders.items():
        found = contender.logits(texts, 32)
        parts = ((found[:, :1], expected[:, :1]), (found[:, 1:], expected[:, 1:]))
        errors = [relative(a, b) for a, b in parts]
        own = relative(found, contender.exact(texts, 32)) if isinstance(contender, Ours) else max(errors)
        print(f"{name:<16}{errors[0]:>10.2g}{errors[1]:>10.2g}{own:>10.2g}")
        if name == "transformers":
            allowed = max(1e-4, 2 * max(errors))  # what the number format alone does, and as much again
        elif not own <= allowed:
            wrong.append(name)
    if wrong:
        raise SystemExit(f"{', '.join(wrong)}: not what transformers computes")


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def speeds(contenders: dict[str, Contender], rounds: int, bandwidth: float, peak: float, toy: bool) -> None:
    """Prints tokens a second, and how much of a step's time is the reading of weights and cache at full speed."""
    count, length, sizes = (4, 40, (1, 3)) if toy else (128, 2048, (1, 64))
    ids = [place % 500 + 5 for place in range(length)]
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):  # the first warms up
        for name, contender in contenders.items():
            works: dict[str, Callable[[], None]] = {"prefill": lambda c=contender: c.prefill(ids)}  # type: ignore[misc]
            for rows in sizes:
                works[f"batch {rows}"] = lambda c=contender, r=rows: c.generate(r, count)  # type: ignore[misc]
            for what, work in works.items():
                sync()
                start = time.perf_counter()
                work()
                sync()
                if number:
                    seconds.setdefault((name, what), []).append(time.perf_counter() - start)
                print(f"{number} {name} {what}: {time.perf_counter() - start:.3f} s", file=sys.stderr, flush=True)
    print(f"\n{'tokens/s':<16}{'':<10}{'median':>12}{'of limit':>10}{'/ transformers':>16}")
    for (name, what), times in seconds.items():
        tokens = length if what == "prefill" else count * int(what.split()[1])
        ratio = statistics.median(a / b for a, b in zip(seconds["transformers", what], times, strict=True))
        share = ""
        contender = contenders[name]
        if isinstance(contender, Ours):
            c = contender.backend.config
            if what == "prefill":
                weights = c.num_hidden_layers * c.hidden_size * (4 * c.hidden_size + 2 * c.intermediate_size)
                limit = 2 * weights * length / peak
            else:
                held = int(what.split()[1]) * (32 + count / 2)  # tokens in the cache, on average
                kept = held * 2 * c.num_hidden_layers * c.hidden_size * contender.backend.cache.keys.element_size()
                limit = count * (contender.backend.step_bytes() + kept) / bandwidth
            share = f"{limit / statistics.median(times):.0%}"
        print(f"{name:<16}{what:<10}{tokens / statistics.median(times):>12,.1f}{share:>10}{ratio:>16.2f}")


def limits(device: torch.device) -> tuple[float, float]:
    """Bytes a second that are read, and operations a second of a matrix product, at best."""
    cuda = device.type == "cuda"
    numbers = torch.ones((1 << 30) if cuda else (1 << 24), device=device)
    size = 8192 if cuda else 256
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16 if cuda else torch.float32) for _ in range(2))
    reading, product = (fastest(work) for work in (lambda: numbers.sum(), lambda: a @ b))
    return numbers.nbytes / reading, 2 * size**3 / product


def fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(10):
        sync()
        start = time.perf_counter()
        work()
        sync()
        times.append(time.perf_counter() - start)
    return min(times)


def sync(device: torch.device | None = None) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
