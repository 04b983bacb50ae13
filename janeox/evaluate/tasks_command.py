"""The verb `tasks`: benchmarks through lm-evaluation-harness, on our engine or on its own transformers backend."""

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from janeox.atomic import new_file
from janeox.errors import JaneoxError
from janeox.evaluate.rival import check_tokenizer
from janeox.lm import load, newest_model
from janeox.recipe import nearest
from janeox.settings.evaluate import Tasks

FOLDER = Path(__file__).parent / "tasks"
SLOTS = 16
FORMS = (ValueError, KeyError, TypeError, AttributeError, AssertionError, IndexError)
"""What the harness raises where a task's YAML lacks something."""


def task_names() -> list[str]:
    """Of the tasks that come with janeox."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def run_tasks(settings: Tasks) -> None:
    """The verb `tasks`: a table of scores, with standard errors.

    Raises:
        JaneoxError: lm-evaluation-harness is missing, an unknown task, data that are missing or not what a task
            reads, or a model that cannot be opened.
    """
    if not settings.tasks:
        print("\n".join(task_names()))
        return
    require_harness()
    name = settings.model or str(newest_model())
    tasks = load_tasks(settings.tasks, settings.data)
    scores = evaluate_tasks(open_model(name, settings), tasks, settings.limit)
    Console().print(scores_table(scores))
    if settings.json_file:
        with new_file(settings.json_file) as new:
            table = {"model": name, "engine": settings.engine, "scores": scores}
            new.write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


@cache
def require_harness() -> None:
    """Raises JaneoxError where lm-evaluation-harness is not installed."""
    try:
        from lm_eval import utils
    except ImportError as error:
        raise JaneoxError("lm-evaluation-harness is not installed here: pip install 'janeox[eval]'") from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # It compiles the templates of a prompt anew for every document, which takes as long as a small model's answer.
    utils.env.from_string = cache(utils.env.from_string)


def load_tasks(names: tuple[str, ...], data: Path | None) -> dict[str, Any]:
    """The harness's task objects, by name, ready to be asked.

    Raises:
        JaneoxError: see `run_tasks`.
    """
    from jinja2 import TemplateError
    from lm_eval.tasks import TaskManager

    # Looking through the harness's own tasks takes many seconds.
    own = all(name in task_names() or Path(name).is_file() for name in names)
    manager = TaskManager(
        include_path=str(FOLDER), include_defaults=not own, metadata={} if data is None else {"data": str(data)}
    )
    tasks: dict[str, Any] = {}
    for name in names:
        if name not in manager.all_tasks and not Path(name).is_file():
            raise JaneoxError(f"unknown task {name!r}{nearest(name, task_names())}")
        try:
            tasks |= manager.load([name])["tasks"]
        except (*FORMS, TemplateError) as error:
            raise JaneoxError(f"the task {name!r} cannot be used: {type(error).__name__}: {error}") from error
    for task in tasks.values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
    return tasks


def evaluate_tasks(model: Any, tasks: dict[str, Any], limit: int | None = None) -> dict[str, dict[str, Any]]:
    """Scores by task: of each metric the value and its standard error, few-shots and number of documents.

    Args:
        model: a model of the harness.
    """
    from lm_eval.evaluator import evaluate

    for task in tasks.values():
        task.set_fewshot_seed(seed=1234)  # the harness's default; the same few-shots in every run
        if hasattr(task, "encode"):  # see tasks/answers.py
            task.encode, task.decode, task.context = model.tok_encode, model.tok_decode, model.max_length
    found = evaluate(model, {"tasks": tasks}, limit=limit, bootstrap_iters=1000, log_samples=False)
    scores: dict[str, dict[str, Any]] = {}
    for name, row in found["results"].items():
        metrics = {key.removesuffix(",none"): value for key, value in row.items() if key.endswith(",none")}
        errors = {key.replace("_stderr", ""): value for key, value in metrics.items() if "_stderr" in key}
        scores[name] = {
            "documents": found["n-samples"][name]["effective"],
            "few_shots": found["n-shot"][name],
            "metrics": {
                key: {"value": value, "error": errors[key] if isinstance(errors.get(key), float) else None}
                for key, value in metrics.items()
                if "_stderr" not in key
            },
        }
    return scores


def open_model(name: str, settings: Tasks) -> Any:
    """The model of the settings, as one of the harness."""
    if settings.engine == "transformers":
        return transformers_model(name, settings.device, settings.dtype)
    from janeox.evaluate.harness import JaneoxLM

    lm = load(name, device=settings.device, dtype=settings.dtype, bits=settings.bits)
    return JaneoxLM(lm.engine(SLOTS).backend, lm.tokenizer)


def transformers_model(name: str, device: str, dtype: str, batch_size: int = 1) -> Any:
    """The harness's own backend, reading text as the published scores of the series were made.

    It would otherwise put what the tokenizer adds to a text by default, in the series an end of text, between a
    context and what should follow it, and begin a text without context with `<s>`.
    """
    from lm_eval.models.huggingface import HFLM

    where = None if device == "auto" else device
    try:
        model = HFLM(pretrained=name, device=where, dtype=dtype, batch_size=batch_size, add_bos_token=False)
    except (OSError, *FORMS) as error:
        raise JaneoxError(f"{name}: transformers cannot open it ({str(error).splitlines()[0]})") from error
    check_tokenizer(name, model.tokenizer)
    model.custom_prefix_token_id = model.eot_token_id
    return model


def scores_table(scores: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Tasks", title_justify="left")
    for column in ("task", "few-shots", "documents", "metric", "value", "standard error"):
        table.add_column(column, justify="left" if column in ("task", "metric") else "right")
    for name, row in scores.items():
        for metric, figure in row["metrics"].items():
            error = "" if figure["error"] is None else f"{figure['error']:.4f}"
            cells = str(row["few_shots"]), f"{row['documents']:,}", metric, f"{figure['value']:.4f}", error
            table.add_row(name, *cells)
    return table
