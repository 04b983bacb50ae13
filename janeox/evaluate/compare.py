"""The verb `compare`: models side by side, each measured in a process of its own."""

import json
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from janeox.atomic import new_file
from janeox.corpus.read import BadRows
from janeox.errors import JaneoxError
from janeox.evaluate.command import input_documents, open_scorer
from janeox.evaluate.page import page
from janeox.evaluate.reference import SCORES, TASKS, family, in_percent, metric
from janeox.evaluate.score import Score, interval, score_texts
from janeox.lm import LM, load
from janeox.progress import progress
from janeox.settings.evaluate import Compare, Evaluate
from janeox.train.cost import peak_memory

NEW_TOKENS = 64
PROMPT_TOKENS = 256


def run_compare(settings: Compare) -> None:
    """The verb `compare`: a table, and a page that needs nothing else.

    Raises:
        JaneoxError: no model named, no text, or what measuring one of the models finds wrong.
    """
    if not settings.models:
        raise JaneoxError("name the models to compare: janeox compare FOLDER_OR_HUB_ID …")
    texts = sample(settings)
    rows = {}
    context = multiprocessing.get_context("spawn")
    with progress("compare", len(settings.models), "models") as bar:
        for model in settings.models:
            # A process for each: so memory is its own, and goes back.
            with ProcessPoolExecutor(1, context) as pool:
                rows[model] = pool.submit(measure, model, settings, texts).result()
            bar.advance(1, note=model)
    table = cells(rows)
    console = Console()
    console.print(rich_table(table))
    with new_file(settings.out) as new:
        new.write_text(page(table, rows), encoding="utf-8")
    with new_file(settings.out.with_suffix(".json")) as new:
        new.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{settings.out}, {settings.out.with_suffix('.json')}")


def sample(settings: Compare) -> list[str]:
    """Texts of at most `settings.chars` characters, from each input in turn; whole documents, as far as they fit."""
    texts: list[str] = []
    room = settings.chars
    parts = [iter(documents) for _, documents in input_documents(settings.input, Path(settings.models[0]), BadRows())]
    while parts and room > 0:
        for part in list(parts):
            document = next(part, None)
            if document is None:
                parts.remove(part)
            elif document.text and room > 0:
                texts.append(document.text[:room])
                room -= len(document.text)
    if not texts:
        raise JaneoxError("no document to compare the models on")
    return texts


def measure(name: str, settings: Compare, texts: list[str]) -> dict[str, Any]:
    """Everything about one model."""
    scorer = open_scorer(name, Evaluate(bits=settings.bits, device=settings.device, dtype=settings.dtype))
    scores = list(score_texts(scorer, texts))
    total = sum(scores, Score())
    lm = load(name, device=settings.device, dtype=settings.dtype, bits=settings.bits)
    row: dict[str, Any] = {
        "parameters": sum(p.numel() for p in lm.model.parameters()),
        "documents": len(texts),
        "perplexity": total.perplexity,
        "bits_per_byte": total.bits_per_byte,
        "bits_per_byte_interval": interval(scores, lambda score: score.bits_per_byte),
        "bits_per_char": total.bits_per_char,
        **speeds(lm, texts),
        "samples": {
            prompt: lm.generate(prompt, max_new_tokens=80, temperature=0.8, top_p=0.9, seed=0)
            for prompt in settings.prompts
        },
        "tasks": {},
    }
    if settings.tasks:
        from janeox.evaluate.tasks_command import SLOTS, evaluate_tasks, load_tasks, require_harness

        require_harness()
        from janeox.evaluate.harness import JaneoxLM

        model = JaneoxLM(lm.engine(SLOTS).backend, lm.tokenizer)
        row["tasks"] = evaluate_tasks(model, load_tasks(settings.tasks, settings.data), settings.limit)
    row["peak_memory_bytes"] = peak_memory(torch.device("cpu"))
    return row


def speeds(lm: LM, texts: list[str], rounds: int = 3) -> dict[str, float]:
    """Medians, tokens a second: written one text at a time, and read."""
    context = lm.model.config.max_position_embeddings
    ids = [id for text in texts for id in lm.tokenizer.encode(text)]
    prompt = ids[: min(PROMPT_TOKENS, context - 2)]
    new = min(NEW_TOKENS, context - 8)
    seconds: dict[str, list[float]] = {"read": [], "write": []}
    lm.complete([prompt[:4]], max_new_tokens=2)  # what is done once
    for _ in range(rounds):
        for what, given, count in (("read", prompt, 1), ("write", prompt[:4], new)):
            start = time.perf_counter()
            lm.complete([given], max_new_tokens=count, min_new_tokens=count, temperature=0)
            seconds[what].append(time.perf_counter() - start)
    return {
        "tokens_read_per_second": len(prompt) / statistics.median(seconds["read"]),
        "tokens_written_per_second": new / statistics.median(seconds["write"]),
    }


def cells(rows: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The table as text: a header, the models, and where tasks were asked the published rows."""
    tasks = [task for row in rows.values() for task in row["tasks"]]
    tasks = list(dict.fromkeys(tasks))
    header = ["model", "parameters", "perplexity", "bits a byte", "tokens/s written", "tokens/s read", "peak memory"]
    table = [header + [f"{task} {metric(task)}" for task in tasks]]
    for name, row in rows.items():
        low, high = row["bits_per_byte_interval"]
        span = "" if low is None else f" [{low:.3f}, {high:.3f}]"
        line = [
            name,
            f"{row['parameters']:,}",
            f"{row['perplexity']:.2f}",
            f"{row['bits_per_byte']:.4f}{span}",
            f"{row['tokens_written_per_second']:,.1f}",
            f"{row['tokens_read_per_second']:,.0f}",
            f"{row['peak_memory_bytes'] / 2**30:.2f} GiB",
        ]
        for task in tasks:
            figure = row["tasks"][task]["metrics"].get(metric(task), {"value": float("nan"), "error": None})
            error = "" if figure["error"] is None else f" ± {in_percent(task, figure['error']):.2f}"
            line.append(f"{in_percent(task, figure['value']):.2f}{error}")
        table.append(line)
    if tasks:
        for name, (version, scores) in SCORES.items():
            known = dict(zip(TASKS, scores, strict=True))
            line = [f"{name} (published, prompts {version})"] + ["–"] * (len(header) - 1)
            table.append(line + [f"{known[family(task)]:.2f}" if family(task) in known else "–" for task in tasks])
    return table


def rich_table(rows: list[list[str]]) -> Table:
    table = Table(title="Comparison", title_justify="left")
    for place, column in enumerate(rows[0]):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    return table
