"""metrics.jsonl → a picture of the loss."""

from pathlib import Path

from janeox.atomic import new_file
from janeox.errors import JaneoxError
from janeox.settings.train import Plot
from janeox.train.metrics import read_metrics


def plot_run(run: Path, picture: Path, unigram_entropy: float | None = None) -> None:
    """Draws training loss, validation loss and, where given, the unigram entropy of the validation tokens (nats).

    Raises:
        JaneoxError: no metrics.jsonl in `run`, or none of its rows has a loss.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = read_metrics(run / "metrics.jsonl")
    losses = [(row["tokens"], row["loss"]) for row in rows if "loss" in row]
    valid = [(row["tokens"], row["valid_loss"]) for row in rows if "valid_loss" in row]
    if not losses:
        raise JaneoxError(f"{run / 'metrics.jsonl'}: no row has a loss yet")
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(*zip(*losses, strict=True), color="#9ab", linewidth=1, label="training")
    if valid:
        axes.plot(*zip(*valid, strict=True), color="#c33", marker="o", markersize=3, label="validation")
    if unigram_entropy:
        axes.axhline(unigram_entropy, color="#555", linestyle="--", linewidth=1, label="unigram entropy")
    axes.set(xlabel="tokens seen", ylabel="loss (nats a token)", title=run.name)
    axes.grid(alpha=0.3)
    axes.legend()
    with new_file(picture) as new:
        figure.savefig(new, format="png", dpi=120)
    plt.close(figure)


def run_plot(settings: Plot) -> None:
    """The verb `plot`."""
    picture = settings.run / "loss.png"
    plot_run(settings.run, picture)
    print(picture)
