"""`janeox run`: every step of a recipe, each of them skipped where its result already stands.

A step's fingerprint covers its settings and the fingerprints of the steps before it, down to the raw files. Steps whose
fingerprint is the one recorded in `steps.json` are done; derived data are made again when it changed; a model is not
trained over another one, that is an error.
"""

import hashlib
import json
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from janeox.atomic import new_file, new_folder
from janeox.corpus import report
from janeox.corpus.page import PAGE
from janeox.corpus.pipeline import clean_corpus, cleaned, read_report, source_files
from janeox.data.shards import Shards
from janeox.data.tokenize import summary, tokenize_corpus
from janeox.device import pick_device
from janeox.errors import JaneoxError
from janeox.evaluate.score import score_shards, unigram_entropy
from janeox.lm import load
from janeox.settings.run import Run
from janeox.settings.train import Pretrain
from janeox.tokenizer import Tokenizer
from janeox.tokenizer.train import train_tokenizer
from janeox.train.pretrain import figures, run_pretrain

SAMPLE = {"max_new_tokens": 120, "temperature": 0.8, "top_p": 0.9, "seed": 0}


def run(settings: Run) -> None:
    """The verb `run`.

    Raises:
        JaneoxError: whatever a step finds wrong; what earlier steps made stays, and the next call goes on from it.
    """
    out, console = settings.out, Console()
    steps, marks = prepare(settings)
    if settings.until == "shards":
        print(f"report: {out / 'corpus' / PAGE}\nshards: {out / 'shards'}")
        return
    shards = Shards(out / "shards")
    if steps.start("model", marks):
        run_pretrain(
            Pretrain(out, model=settings.model, data=settings.data, optim=settings.optim, train=settings.train)
        )
        steps.finish("model", marks)
    if steps.start("evaluation", marks):
        _evaluate(settings, shards)
        steps.finish("evaluation", marks)
    console.print(closing_table(out, shards))
    print(_next(out))


def prepare(settings: Run) -> tuple["Steps", dict[str, str]]:
    """Raw files → corpus, tokenizer and shards in the run's folder; the steps done so far, and `fingerprints`.

    Raises:
        JaneoxError: the folder holds a model of other data, or what a step finds wrong.
    """
    out, console = settings.out, Console()
    steps = Steps(out / "steps.json")
    marks = fingerprints(settings)
    if (out / "state").exists() and steps.done.get("shards", marks["shards"]) != marks["shards"]:
        raise JaneoxError(
            f"{out}: holds a model trained on other data (corpus, tokenizer or raw files have changed); "
            "give another --out folder, or remove this one to start anew"
        )
    if steps.start("corpus", marks):
        console.print(report.table(clean_corpus(settings.corpus, out / "corpus")))
        steps.finish("corpus", marks)
    if steps.start("tokenizer", marks):
        texts = (document.text for document in cleaned(out / "corpus", "train"))
        with new_folder(out / "tokenizer") as new:
            train_tokenizer(texts, settings.tokenizer).save(new)
        steps.finish("tokenizer", marks)
    tokenizer = Tokenizer.load(out / "tokenizer")
    if steps.start("shards", marks):
        console.print(summary(tokenize_corpus(out / "corpus", tokenizer, out / "shards")))
        steps.finish("shards", marks)
    return steps, marks


def fingerprints(settings: Run) -> dict[str, str]:
    """By step, a hash of everything that its result depends on."""
    raw = [
        (name, file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for name, files in source_files(settings.corpus).items()
        for file in files
    ]
    marks, before = {}, ""
    for step, own in (
        ("corpus", (raw, asdict(replace(settings.corpus, workers=0)))),
        ("tokenizer", asdict(settings.tokenizer)),
        ("shards", ()),
        ("model", tuple(asdict(part) for part in (settings.model, settings.data, settings.optim, settings.train))),
        ("evaluation", SAMPLE),
    ):
        before = hashlib.sha256(repr((before, step, own)).encode()).hexdigest()[:16]
        marks[step] = before
    return marks


class Steps:
    """`steps.json`: the fingerprint of every finished step."""

    def __init__(self, file: Path):
        self.file = file
        try:
            self.done: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        except ValueError as error:
            raise JaneoxError(f"{file}: damaged ({error}); remove it, and finished steps are done again") from error

    def start(self, step: str, marks: dict[str, str]) -> bool:
        """Whether the step is to be done."""
        fresh = self.done.get(step) != marks[step]
        print(f"── {step}" + ("" if fresh else ": done before"), flush=True)
        return fresh

    def finish(self, step: str, marks: dict[str, str]) -> None:
        self.done[step] = marks[step]
        with new_file(self.file) as new:
            new.write_text(json.dumps(self.done, indent=1) + "\n", encoding="utf-8")


def _evaluate(settings: Run, shards: Shards) -> None:
    """Opens the model folder as any user would; writes evaluation.json and sample.txt."""
    on_cpu = pick_device(settings.train.device).type == "cpu"
    dtype = "float32" if on_cpu and settings.train.save_dtype == "float16" else "auto"  # see LM.scorer
    lm = load(settings.out / "model", device=settings.train.device, dtype=dtype)
    data = settings.data
    scores = score_shards(
        lm.model, shards, data.sequence_length, data.micro_batch_rows, separate=data.separate_documents
    )
    table = figures(scores) | {"unigram_entropy": unigram_entropy(shards)}
    table |= {"tokens_by_source": {name: score.num_tokens for name, score in scores.items()}}
    prompt = settings.train.sample_prompt
    text = prompt + lm.generate(prompt, **SAMPLE)
    for name, content in (("evaluation.json", json.dumps(table, indent=1)), ("sample.txt", text)):
        with new_file(settings.out / name) as new:
            new.write_text(content + "\n", encoding="utf-8")


def closing_table(out: Path, shards: Shards) -> Table:
    """What was made, where it is, and how good it is."""
    evaluation = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    corpus = read_report(out / "corpus")["sources"].values()
    documents = sum(source[split]["documents"] for source in corpus for split in ("train", "valid"))
    chars = sum(source[split]["chars"] for source in corpus for split in ("train", "valid"))
    tokens = {split: sum(file.num_tokens for file in shards.of(split)) for split in ("train", "valid")}
    table = Table(title=f"{out}: raw text → model", title_justify="left")
    for column in ("what", "where", "figures"):
        table.add_column(column, overflow="fold")
    table.add_row("clean corpus", "corpus/", f"{documents:,} documents, {chars:,} characters")
    table.add_row("tokenizer", "tokenizer/", f"{shards.vocab_size:,} pieces")
    table.add_row("token shards", "shards/", f"{tokens['train']:,} tokens to train on, {tokens['valid']:,} held out")
    table.add_row("model", "model/", "a Hugging Face folder: transformers opens it as it is")
    table.add_row("to go on", "state/", "weights and optimizer")
    table.add_row("loss", "metrics.jsonl, loss.png", "every step that was logged, and its picture")
    if "valid_loss" in evaluation:
        loss, entropy = evaluation["valid_loss"], evaluation["unigram_entropy"]
        measured = (
            f"loss {loss:.3f} nats a token (unigram entropy of the same tokens: {entropy:.3f}), "
            f"perplexity {evaluation['valid_perplexity']:.1f}, {evaluation['valid_bits_per_byte']:.3f} bits a byte"
        )
        table.add_row("validation", "evaluation.json", measured)
    table.add_row("sample", "sample.txt", (out / "sample.txt").read_text(encoding="utf-8").strip())
    return table


def _next(out: Path) -> str:
    """Commands that can be pasted into the shell that `run` was called from."""
    programs, model = Path(sys.executable).parent, out / "model"
    here = f"{programs.relative_to(Path.cwd())}/" if programs.is_relative_to(Path.cwd()) else ""
    code = f'import janeox; print(janeox.load("{model}").generate("日本の歴史は、"))'
    return f"""Type next:
  {here}janeox generate "東京は、" --model {shlex.quote(str(model))}
  {here}janeox evaluate --model {shlex.quote(str(model))}
  {here}python -c {shlex.quote(code)}"""
