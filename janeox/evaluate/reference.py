"""Published scores of the series, in percent, to stand beside what is measured here.

They are those of models/rinna/*/result.json in the branch jp-stable of github.com/Stability-AI/lm-evaluation-harness,
made in 2023. JGLUE's data have changed since (v1.1 then, as it seems; v1.3 now), and few-shots were drawn from training
sets by another program: a difference of a point or two says nothing. rinna's own figures are of other prompts.
"""

SOURCE = "Stability-AI/lm-evaluation-harness, branch jp-stable, models/rinna/*/result.json (2023)"
TASKS = ("jcommonsenseqa", "jnli", "marc_ja", "jsquad", "jaqket_v2", "xlsum_ja", "xwinograd_ja", "mgsm")
METRICS = {"jsquad": "exact_match", "jaqket_v2": "exact_match", "xlsum_ja": "rouge2"}  # else acc
SCORES: dict[str, tuple[str, tuple[float, ...]]] = {
    "rinna/japanese-gpt-neox-3.6b": ("0.2", (31.64, 34.43, 74.82, 47.91, 68.38, 5.16, 70.80, 1.2)),
    "rinna/japanese-gpt-neox-3.6b-instruction-sft": ("0.4", (38.07, 44.58, 90.62, 47.41, 53.69, 4.74, 69.45, 2.0)),
    "rinna/japanese-gpt-neox-3.6b-instruction-sft-v2": ("0.4", (40.57, 53.45, 89.88, 44.91, 52.84, 6.14, 71.22, 2.8)),
    "rinna/japanese-gpt-neox-3.6b-instruction-ppo": ("0.4", (44.06, 54.19, 89.61, 51.62, 50.95, 6.63, 69.13, 4.4)),
}
"""Model → version of the prompts, and its scores in the order of TASKS."""


def family(task: str) -> str:
    """jnli-1.3-0.2 → jnli."""
    return task.split("-")[0]


def metric(task: str) -> str:
    """The one that leaderboards show."""
    return METRICS.get(family(task), "acc")


def in_percent(task: str, value: float) -> float:
    """Accuracies are shares; the others are in percent already."""
    return value if family(task) in METRICS else 100 * value
