"""metrics.jsonl → a picture of the loss, of one run or of several over each other."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from janeox.atomic import new_file
from janeox.errors import JaneoxError
from janeox.settings.train import Plot
from janeox.train.metrics import read_metrics

JAPANESE = ("Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "IPAexGothic", "IPAGothic")  # for names of runs


def plot_runs(runs: Sequence[Path], picture: Path, unigram_entropy: float | None = None) -> None:
    """Draws training and validation loss by tokens seen and, where given, the unigram entropy of the validation tokens.

    Raises:
        JaneoxError: no metrics.jsonl in a run, or none of its rows has a loss.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.font_manager import fontManager

    known = {font.name for font in fontManager.ttflist}
    plt.rcParams["font.family"] = ["DejaVu Sans", *(name for name in JAPANESE if name in known)]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for number, run in enumerate(runs):
        rows = read_metrics(run / "metrics.jsonl")
        losses = [(row["tokens"], row["loss"]) for row in rows if "loss" in row and not row.get("skipped")]
        valid = [(row["tokens"], row["valid_loss"]) for row in rows if "valid_loss" in row]
        if not losses:
            raise JaneoxError(f"{run / 'metrics.jsonl'}: no row has a loss yet")
        name = f"{run.name}, " if len(runs) > 1 else ""
        color = f"C{number}"
        axes.plot(*zip(*losses, strict=True), color=color, alpha=0.4, linewidth=1, label=f"{name}training")
        if valid:
            axes.plot(*zip(*valid, strict=True), color=color, marker="o", markersize=3, label=f"{name}validation")
    if unigram_entropy:
        axes.axhline(unigram_entropy, color="#555", linestyle="--", linewidth=1, label="unigram entropy")
    title = runs[0].name if len(runs) == 1 else ""
    axes.set(xlabel="tokens seen", ylabel="loss (nats a token)", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    with new_file(picture) as new, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # no Japanese font here: the name is boxes
        figure.savefig(new, format="png", dpi=120)
    plt.close(figure)


def run_plot(settings: Plot) -> None:
    """The verb `plot`."""
    picture = settings.picture or (settings.run[0] / "loss.png" if len(settings.run) == 1 else Path("loss.png"))
    plot_runs(settings.run, picture)
    print(picture)
