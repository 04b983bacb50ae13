"""The verb `ladder`: trains the rungs, fits the law, and says how far its predictions hold."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from janeox.atomic import new_file
from janeox.config import GPTNeoXConfig
from janeox.data.shards import Shards
from janeox.evaluate.scaling import Law, Rung, bootstrap, fit
from janeox.model import GPTNeoX
from janeox.pipeline import prepare
from janeox.recipe import read_recipe
from janeox.settings.evaluate import Ladder, LadderSize
from janeox.settings.train import Pretrain
from janeox.train.metrics import read_metrics
from janeox.train.pretrain import run_pretrain


def run_ladder(settings: Ladder) -> None:
    """The verb `ladder`; rungs that are trained are not trained again.

    Writes `ladder.json` (every rung, the law, the predictions) and `ladder.png` into the ladder's folder.

    Raises:
        JaneoxError: too few rungs, or what training one of them finds wrong.
    """
    targets = {path.stem: read_recipe(Pretrain, path) for path in settings.predict}
    prepare(settings)
    pairs = [(size, _train(settings, size, tokens)) for size in settings.sizes for tokens in size.tokens]
    fitted = [rung for size, rung in pairs if not size.held_out]
    law = fit(fitted)
    laws = bootstrap(fitted, law)
    bits = _bits_per_nat(Shards(settings.out / "shards"))
    report: dict[str, Any] = {"law": asdict(law), "bits_per_byte_per_nat": bits, "rungs": [], "predictions": {}}
    for size, rung in pairs:
        row = asdict(size) | rung._asdict() | predicted(law, laws, rung.parameters, rung.tokens)
        report["rungs"].append(row)
    for name, target in targets.items():
        shape = {"parameters": count_parameters(target.model), "tokens": target.train.tokens}
        report["predictions"][name] = shape | predicted(law, laws, **shape)
    with new_file(settings.out / "ladder.json") as new:
        new.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plot(report, law, settings.out / "ladder.png")
    _print(report, law, settings.out)


def count_parameters(config: GPTNeoXConfig) -> int:
    """Of a model without its input embedding."""
    with torch.device("meta"):
        model = GPTNeoX(config)
    return sum(p.numel() for p in model.parameters()) - config.vocab_size * config.hidden_size


def predicted(law: Law, laws: list[Law], parameters: float, tokens: float) -> dict[str, Any]:
    """The law's loss, nats a token, and the range of the middle 95 % of `laws`."""
    low, high = np.percentile([each(parameters, tokens) for each in laws], (2.5, 97.5))
    return {"predicted": law(parameters, tokens), "interval": [float(low), float(high)]}


def _train(settings: Ladder, size: LadderSize, tokens: int) -> Rung:
    """Trains one rung, or what is left of it; its last validation loss."""
    model = replace(
        settings.model,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.num_hidden_layers,
        num_attention_heads=size.num_attention_heads,
        intermediate_size=4 * size.hidden_size,
    )
    out = settings.out / f"{size.hidden_size}x{size.num_hidden_layers}-{tokens}"
    print(f"── {out.name}", flush=True)
    never = tokens  # steps; the last step validates and saves in any case
    train = replace(settings.train, tokens=tokens, evaluate_every=never, sample_every=0)
    shards, tokenizer = settings.out / "shards", settings.out / "tokenizer"
    run_pretrain(Pretrain(out, shards, tokenizer, model, settings.data, settings.optim, train))
    last = read_metrics(out / "metrics.jsonl")[-1]
    return Rung(count_parameters(model), last["tokens"], last["valid_loss"])


def _bits_per_nat(shards: Shards) -> float:
    """Bits a byte of the validation text for each nat a token."""
    files = [file for _, part in shards.by_source("valid") for file in part]
    return sum(file.num_tokens for file in files) / sum(file.num_bytes for file in files) / math.log(2)


def _print(report: dict[str, Any], law: Law, out: Path) -> None:
    table = Table(title="Scaling ladder", caption="\\[95 % of the resamplings]", caption_justify="left")
    for column in ("model", "parameters", "tokens", "loss", "predicted", "error"):
        table.add_column(column, justify="left" if column == "model" else "right")

    def add(name: str, row: dict[str, Any]) -> None:
        low, high = row["interval"]
        loss = row.get("loss")
        measured = ("", "") if loss is None else (f"{loss:.4f}", f"{row['predicted'] / loss - 1:+.2%}")
        prediction = f"{row['predicted']:.4f} \\[{low:.3f}, {high:.3f}]"
        table.add_row(name, f"{row['parameters']:,}", f"{row['tokens']:,}", measured[0], prediction, measured[1])

    for row in report["rungs"]:
        name = f"{row['hidden_size']} × {row['num_hidden_layers']}"
        add(f"{name} (held out)" if row["held_out"] else name, row)
    for name, row in report["predictions"].items():
        add(name, row)
    console = Console()
    console.print(table)
    console.print(str(law))
    fitted = [rung for rung in report["rungs"] if not rung["held_out"]]
    bits = report["bits_per_byte_per_nat"]
    for name, row in report["predictions"].items():
        low, high = row["interval"]
        sizes, tokens = (row[key] / max(rung[key] for rung in fitted) for key in ("parameters", "tokens"))
        console.print(
            f"{name}: {bits * row['predicted']:.3f} \\[{bits * low:.3f}, {bits * high:.3f}] bits a byte of this "
            f"validation text, if the form holds at {sizes:,.0f} × the parameters and {tokens:,.0f} × the tokens"
        )
    print(f"{out / 'ladder.json'}, {out / 'ladder.png'}")


def plot(report: dict[str, Any], law: Law, picture: Path) -> None:
    """Loss against tokens, a line for each size; held-out rungs as rings."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    rows = report["rungs"]
    for size in sorted({row["parameters"] for row in rows}):
        mine = [row for row in rows if row["parameters"] == size]
        span = np.geomspace(min(row["tokens"] for row in rows), max(row["tokens"] for row in rows))
        (line,) = axes.plot(span, [law(size, tokens) for tokens in span], linewidth=1, label=f"{size / 1e6:.2f} M")
        for row in mine:
            face = "none" if row["held_out"] else line.get_color()
            axes.plot(row["tokens"], row["loss"], "o", color=line.get_color(), markerfacecolor=face)
    axes.set(xscale="log", xlabel="training tokens", ylabel="validation loss (nats a token)", title=str(law))
    axes.grid(alpha=0.3, which="both")
    axes.legend(title="parameters")
    with new_file(picture) as new:
        figure.savefig(new, format="png", dpi=120)
    plt.close(figure)
