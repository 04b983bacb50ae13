"""Writes what `make run` gave into the READMEs, between the `result` marks.

python -m benchmarks.readme [RUN]
"""

import argparse
import json
import re
from pathlib import Path

from benchmarks.machine import header
from janeox.progress import clock
from janeox.train.metrics import read_metrics

MARKS = re.compile(r"(<!-- result: .*? -->\n).*?(<!-- /result -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/tiny-cpu"))
    result = block(parser.parse_args().run)
    for name in ("README.md", "README.ja.md"):
        text = Path(name).read_text(encoding="utf-8")
        Path(name).write_text(MARKS.sub(lambda match: match[1] + result + match[2], text), encoding="utf-8")


def block(run: Path) -> str:
    """The result of a run as a fenced block."""
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    rows = read_metrics(run / "metrics.jsonl")
    seconds = rows[-1]["time"]["at"] - rows[0]["time"]["at"]
    lines = [
        f"trained on {rows[-1]['tokens']:,} tokens in {clock(seconds)} (minutes:seconds)",
        f"validation loss {evaluation['valid_loss']:.3f} nats a token; unigram entropy of the same tokens "
        f"{evaluation['unigram_entropy']:.3f}",
        f"perplexity {evaluation['valid_perplexity']:.1f}, {evaluation['valid_bits_per_byte']:.3f} bits a byte",
        header(),
        "",
        (run / "sample.txt").read_text(encoding="utf-8").strip(),
    ]
    return "```text\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    main()
