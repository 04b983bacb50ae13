"""Time and peak memory of opening the 3.6B model from disk, janeox and transformers in turn.

    python -m benchmarks.open_model [--rounds 2] [--folder DIR]

Writes the published shape in float16 (7.2 GB) as safetensors and as a pytorch_model.bin with the old mask buffers, then
opens each in a fresh process and reads every memory page of the weights. `peak` is the process's largest resident size,
`before` that size once the libraries were imported, `own` what of the final size is not backed by the file.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.machine import header
from janeox.config import GPTNeoXConfig
from janeox.model import GPTNeoX
from janeox.weights import write_weights

CHILD = """
import json, sys, time
import torch

def resident(kind):
    # Not getrusage: its maximum begins with that of the process that started this one.
    line = next(line for line in open("/proc/self/status") if line.startswith(kind))
    return int(line.split()[1]) / 2**20

if sys.argv[1] == "janeox":
    from janeox.model import GPTNeoX
    open_model = lambda: GPTNeoX.from_pretrained(sys.argv[2])
else:
    from transformers import GPTNeoXForCausalLM
    open_model = lambda: GPTNeoXForCausalLM.from_pretrained(sys.argv[2], dtype="auto")
before = resident("VmHWM")
start = time.perf_counter()
model = open_model()
opened = time.perf_counter() - start
# Every page is touched: 2,048 two-byte numbers.
total = sum(p.detach().flatten()[::2048].float().sum().item() for p in model.parameters())
read = time.perf_counter() - start
print(json.dumps([opened, read, resident("VmHWM"), before, resident("RssAnon"), total]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where 15 GB may be written; a temporary folder by default")
    arguments = parser.parse_args()
    print(header())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for form in ("safetensors", "bin"):
            path = Path(folder) / form
            size = write_model(path, form)
            print(f"\n{form}, {size / 2**30:.2f} GiB of weights")
            compare(path, arguments.rounds)
            shutil.rmtree(path)


def write_model(path: Path, form: str) -> int:
    """Writes the model; returns the bytes of its weights. All matrices share their random numbers to save time."""
    config = GPTNeoXConfig()
    with torch.device("meta"):
        model = GPTNeoX(config)
    noise = torch.randn(config.vocab_size * config.hidden_size, dtype=torch.float16)
    tensors = {name: noise[: p.numel()].view(p.shape) for name, p in model.state_dict().items()}
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config.to_hf("float16")))
    if form == "safetensors":
        write_weights({name: t.clone() for name, t in tensors.items()}, path, max_file_bytes=10**12)
    else:
        stored = {name: tensor.clone() for name, tensor in tensors.items()}
        for layer in range(config.num_hidden_layers):
            at = f"gpt_neox.layers.{layer}.attention."
            stored[at + "bias"] = torch.ones(1, 1, 2048, 2048, dtype=torch.uint8).tril()
            stored[at + "masked_bias"] = torch.tensor(-1e9)
            stored[at + "rotary_emb.inv_freq"] = torch.ones(64)
        torch.save(stored, path / "pytorch_model.bin")
    return sum(tensor.nbytes for tensor in tensors.values())


def compare(path: Path, rounds: int) -> None:
    """Opens `path` in fresh processes, the rivals in turn, and prints the median of each."""
    results: dict[str, list[list[float]]] = {"janeox": [], "transformers": []}
    for _ in range(rounds):
        for name, rows in results.items():
            command = [sys.executable, "-c", CHILD, name, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{'':<14}{'open s':>9}{'and read s':>12}{'peak GiB':>10}{'before GiB':>12}{'own GiB':>9}")
    for name, rows in results.items():
        medians = [statistics.median(row[column] for row in rows) for column in range(5)]
        opened, read, peak, before, own = medians
        print(f"{name:<14}{opened:>9.2f}{read:>12.2f}{peak:>10.2f}{before:>12.2f}{own:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
