"""Small runs for the tests: a recipe of a few seconds over a few works, and the command line as a user calls it."""

import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from janeox.cli import main
from janeox.train.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[1]

RECIPE = """
out = "{out}"
[corpus]
sources = {{ books = "{raw}" }}
valid_fraction = 0.1
[tokenizer]
vocab_size = 2000
character_coverage = 0.98
[model]
vocab_size = 2000
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = {context}
[data]
sequence_length = 32
batch_tokens = 256
micro_batch_rows = 4
[optim]
name = "muon"
learning_rate = 5e-3
[train]
tokens = 5120
save_every = 5
evaluate_every = 10
sample_every = 0
log_every = 1
dtype = "float32"
"""


def write_recipe(folder: Path, context: int = 64) -> Path:
    """A recipe of 20 steps into `folder/run`, over a corpus that it brings along."""
    raw = folder / "books.txt.xz"
    text = lzma.decompress((ROOT / "tests" / "data" / "aozora.txt.xz").read_bytes()).decode()
    raw.write_bytes(lzma.compress("\n\n".join(text.split("\n\n")[:60]).encode(), preset=0))
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(out=folder / "run", raw=raw, context=context), encoding="utf-8")
    return recipe


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def janeox(*arguments: object) -> Done:
    """Runs `janeox ARGUMENTS` in this process, which saves the seconds that importing torch takes."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as stop:  # tyro, at a wrong call
            code = stop.code
    return Done(code, out.getvalue(), err.getvalue())


def start(*arguments: object, preexec_fn: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """Starts `janeox ARGUMENTS` in a process of its own, which can be killed; its output is in `.stdout`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "janeox.cli", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=preexec_fn
    )


def metrics(run: Path) -> list[dict]:
    """The rows of a run's metrics, without the fields that tell of time."""
    rows = read_metrics(run / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def together(processes: int, calls: list[list[str]]) -> str:
    """Runs `janeox` with each of the argument lists, by several processes, as torchrun starts them; what they print."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(ROOT / "tests" / "together.py"), json.dumps(calls)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
