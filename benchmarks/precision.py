"""What each precision of the native kernels changes: logits, predictions and perplexity, beside float32.

    python -m benchmarks.precision MODEL [FILE …] [--tokens 20000] [--reference transformers]

MODEL is a folder; FILE a text in any of the corpus formats, none for random ids. The reference is transformers in
float32, or janeox in 32 bits where memory is short. Documents are read in windows of up to 512 tokens from their
beginning. `relative` is |difference| / |logits| (Frobenius); KL is KL(reference ‖ this) in nats.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import header
from janeox.corpus.read import BadRows, read_documents
from janeox.engine.backend import Row
from janeox.engine.native_backend import NativeBackend
from janeox.engine.torch_backend import TorchBackend
from janeox.model import GPTNeoX
from janeox.tokenizer import Tokenizer

WINDOW = 512
Logits = Callable[[list[int]], Tensor]  # ids → (T, V) float32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--reference", choices=("transformers", "janeox"), default="transformers")
    parser.add_argument("--only", default="32,16,16/8,8,8/8,4", help="weights in bits, /8 for a cache of 8 bits")
    options = parser.parse_args()
    print(header())
    model = GPTNeoX.from_pretrained(options.model)
    texts = list(windows(options.model, model, options.files, options.tokens))
    print(f"{sum(map(len, texts)):,} tokens in {len(texts)} windows; reference: {options.reference}, float32")
    reference = transformers(options.model) if options.reference == "transformers" else native(model, 32, None)
    expected = [reference(ids) for ids in texts]
    del reference
    print(f"{'weights':<16}{'largest':>10}{'mean':>10}{'relative':>10}{'KL':>11}{'top-1':>9}{'perplexity':>12}")
    known = iter(expected)
    report("reference", texts, expected, lambda ids: next(known))
    for name in options.only.split(","):
        bits, _, cache_bits = name.partition("/")
        label = f"{bits} bits" + (", cache 8" if cache_bits else "")
        report(label, texts, expected, native(model, int(bits), int(cache_bits) if cache_bits else None))
    model.to(torch.bfloat16)
    report("bfloat16", texts, expected, native(model, 16, None))
    report("torch bfloat16", texts, expected, by_torch(model))


def windows(folder: Path, model: GPTNeoX, files: list[Path], tokens: int) -> Iterator[list[int]]:
    width = min(WINDOW, model.config.max_position_embeddings)
    if not files:
        generator = torch.Generator().manual_seed(0)
        for first in range(0, tokens, width):
            shape = (min(width, tokens - first),)
            yield torch.randint(0, model.config.vocab_size, shape, generator=generator).tolist()
        return
    tokenizer = Tokenizer.load(folder)
    left = [tokens // len(files)] * len(files)  # as much of each file
    for place, file in enumerate(files):
        for document in read_documents(file, file.name, BadRows()):
            ids = [model.config.eos_token_id, *tokenizer.encode(document.text)][: min(width, left[place])]
            left[place] -= len(ids)
            if len(ids) > 1:
                yield ids


def native(model: GPTNeoX, bits: int, cache_bits: int | None) -> Logits:
    backend = NativeBackend.from_model(
        model, 1, min(WINDOW, model.config.max_position_embeddings), bits=bits, cache_bits=cache_bits
    )
    return lambda ids: backend.forward([Row(0, 0, ids)], every=True)


def by_torch(model: GPTNeoX) -> Logits:
    backend = TorchBackend(model, 1, min(WINDOW, model.config.max_position_embeddings))
    return lambda ids: backend.forward([Row(0, 0, ids)], every=True)


def transformers(folder: Path) -> Logits:
    from transformers import GPTNeoXForCausalLM

    model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def logits(ids: list[int]) -> Tensor:
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0]

    return logits


def report(name: str, texts: list[list[int]], expected: list[Tensor], logits: Logits) -> None:
    largest = total = squares = norm = divergence = nll = 0.0
    agreed = tokens = numbers = 0
    for ids, reference in zip(texts, expected, strict=True):
        reference = reference.float()
        found = logits(ids).float()
        difference = found - reference
        largest = max(largest, difference.abs().max().item())
        total += difference.abs().sum().item()
        squares += difference.square().sum().item()
        norm += reference.square().sum().item()
        log_p, log_q = reference.log_softmax(1), found.log_softmax(1)
        divergence += (log_p.exp() * (log_p - log_q)).sum().item()
        agreed += int((found.argmax(1) == reference.argmax(1)).sum())
        nll += F.nll_loss(log_q[:-1], torch.tensor(ids[1:]), reduction="sum").item()
        tokens += len(ids)
        numbers += reference.numel()
    perplexity = math.exp(nll / (tokens - len(texts)))
    print(
        f"{name:<16}{largest:>10.2g}{total / numbers:>10.2g}{math.sqrt(squares / norm):>10.2g}"
        f"{divergence / tokens:>11.2g}{agreed / tokens:>9.2%}{perplexity:>12.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
