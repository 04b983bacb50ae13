"""The command line: `janeox VERB [RECIPE.toml] [section.key=value …] [--flags]`.

A verb is a dataclass of settings and a function that takes it. Neither torch nor the verb's module is imported before
the settings have been read, so every `--help` is instant.
"""

import importlib
import io
import math
import os
import re
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janeox import recipe
from janeox.errors import JaneoxError
from janeox.settings import corpus, evaluate, generate, native, run, serve, tokenizer, train, tune


@dataclass(frozen=True)
class Verb:
    settings: type
    function: str
    """`module:function`, imported when the verb runs."""
    summary: str
    positional: str = ""
    """Setting that bare arguments give."""


VERBS = {
    "run": Verb(run.Run, "janeox.pipeline:run", "all steps of a recipe: raw text → a model that speaks"),
    "download": Verb(
        corpus.Download, "janeox.corpus.download:run_download", "fetches a raw corpus", positional="corpus"
    ),
    "clean": Verb(corpus.Clean, "janeox.corpus.report:run_clean", "raw files → clean documents, split in two"),
    "train-tokenizer": Verb(
        tokenizer.TrainTokenizer,
        "janeox.tokenizer.train:run_train_tokenizer",
        "clean documents → a sentencepiece tokenizer",
    ),
    "export-tokenizer": Verb(
        tokenizer.ExportTokenizer,
        "janeox.tokenizer.doctor:run_export_tokenizer",
        "repairs a tokenizer folder for other libraries",
        positional="folder",
    ),
    "doctor": Verb(
        tokenizer.Doctor,
        "janeox.tokenizer.doctor:run_doctor",
        "which libraries misread a tokenizer folder",
        positional="folder",
    ),
    "tokenize": Verb(tokenizer.Tokenize, "janeox.data.tokenize:run_tokenize", "clean documents → token shards"),
    "import-shards": Verb(
        tokenizer.ImportShards,
        "janeox.data.megatron:run_import_shards",
        "gpt-neox's and Megatron's .bin/.idx → token shards",
        positional="files",
    ),
    "pretrain": Verb(
        train.Pretrain, "janeox.train.pretrain:run_pretrain", "token shards → a model; goes on where it stopped"
    ),
    "sft": Verb(tune.Sft, "janeox.tune.sft:run_sft", "conversations → a model that answers"),
    "reward": Verb(tune.Reward, "janeox.tune.reward:run_reward", "pairs of replies → a model that scores replies"),
    "ppo": Verb(tune.Ppo, "janeox.tune.ppo:run_ppo", "prompts and a reward → a model that earns more of it"),
    "grpo": Verb(
        tune.Grpo, "janeox.tune.grpo:run_grpo", "prompts and a reward → the same, comparing replies to one prompt"
    ),
    "dpo": Verb(tune.Dpo, "janeox.tune.dpo:run_dpo", "pairs of replies → a model that prefers the better ones"),
    "judge": Verb(
        tune.Judge, "janeox.tune.judge:run_judge", "two models, and whose replies a reward prefers", positional="models"
    ),
    "chat": Verb(tune.Chat, "janeox.tune.chat:run_chat", "a talk in the terminal", positional="model"),
    "evaluate": Verb(
        evaluate.Evaluate,
        "janeox.evaluate.command:run_evaluate",
        "perplexity and bits per byte of texts",
        positional="input",
    ),
    "tasks": Verb(
        evaluate.Tasks,
        "janeox.evaluate.tasks_command:run_tasks",
        "scores of Japanese benchmarks (JGLUE and others)",
        positional="tasks",
    ),
    "compare": Verb(
        evaluate.Compare, "janeox.evaluate.compare:run_compare", "models side by side, as a page", positional="models"
    ),
    "ladder": Verb(
        evaluate.Ladder, "janeox.evaluate.ladder:run_ladder", "models of several sizes → the loss of larger ones"
    ),
    "generate": Verb(generate.Generate, "janeox.engine.command:run_generate", "continues a text", positional="prompt"),
    "bench": Verb(
        native.Bench, "janeox.engine.bench:run_bench", "speed on this CPU, beside its limits", positional="model"
    ),
    "quantize": Verb(
        native.Quantize,
        "janeox.engine.quantize:run_quantize",
        "a model in 8 or 4 bits, and what that costs",
        positional="folder",
    ),
    "serve": Verb(serve.Serve, "janeox.serve.command:run_serve", "OpenAI's interface and a page", positional="model"),
    "plot": Verb(train.Plot, "janeox.train.plot:run_plot", "draws the loss of runs", positional="run"),
    "plan": Verb(train.Plan, "janeox.train.plan:run_plan", "memory and time that a recipe needs, on GPUs or here"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one verb. Returns its exit status: 1 for bad input (one line on stderr), 2 a wrong call, 130 Ctrl-C, 141
    where nobody reads the output any more."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal in EUC-JP cannot show every character
    try:
        status = run_verb(argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who read the output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def run_verb(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    name, *rest = argv
    if name not in VERBS:
        print(f"janeox: unknown verb {name!r}{recipe.nearest(name, VERBS)}", file=sys.stderr)
        return 2
    try:
        parsed = parse(VERBS[name], f"janeox {name}", rest)
        module, function = VERBS[name].function.split(":")
        getattr(importlib.import_module(module), function)(parsed)
    except JaneoxError as error:
        print(f"janeox {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\njaneox {name}: stopped", file=sys.stderr)
        return 130
    return 0


def overview() -> str:
    width = max(map(len, VERBS))
    lines = ["janeox: Japanese language models, from raw text to generation", ""]
    lines += ["usage: janeox VERB [RECIPE.toml] [section.key=value …] [--flag value …]", ""]
    lines += [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    lines += [
        "",
        "janeox VERB --help shows a verb's settings; with a recipe before it, the values that the recipe gives.",
    ]
    return "\n".join(lines)


def parse(verb: Verb, program: str, arguments: list[str]) -> Any:
    """Settings of a verb: its defaults, then a recipe, then `section.key=value` and flags."""
    import tyro

    cls = verb.settings
    default: Any = None
    asked = [argument for argument in arguments if argument in ("-h", "--help")]
    if asked and len(arguments) > len(asked):  # the help shows the values that the other arguments give
        default = parse(verb, program, [argument for argument in arguments if argument not in asked])
        arguments = asked
    elif arguments and arguments[0].endswith(".toml"):
        default = recipe.read_recipe(cls, Path(arguments[0]))
        arguments = arguments[1:]
    bare, others = split_bare(cls, arguments) if verb.positional else ([], [])
    if bare:
        arguments = [f"--{verb.positional}", *bare, *others]
    else:
        arguments = [f"--{a}" if re.match(r"[a-z_]+(\.[a-z_0-9]+)*=", a) else a for a in arguments]
    return tyro.cli(
        cls,
        prog=program,
        description=cls.__doc__,
        args=arguments,
        default=cls() if default is None else default,
        config=(tyro.conf.FlagConversionOff, tyro.conf.HelptextFromCommentsOff),
    )


def split_bare(cls: type, arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments that are neither flags nor their values, wherever they stand; and the others."""
    several = {name for name, hint in typing.get_type_hints(cls).items() if typing.get_origin(hint) in (tuple, dict)}
    bare: list[str] = []
    others: list[str] = []
    taken = 0.0  # arguments that the flag before takes
    for argument in arguments:
        if argument.startswith("--"):
            name = argument[2:].replace("-", "_")
            taken = 0 if "=" in name else math.inf if name in several else 1
            others.append(argument)
        elif taken:
            taken -= 1
            others.append(argument)
        else:
            bare.append(argument)
    return bare, others


if __name__ == "__main__":
    sys.exit(main())
