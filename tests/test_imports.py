"""Imports point one way, and only what computes with tensors imports torch."""

import ast
import subprocess
import sys

from runs import ROOT

# Each module may import those above it.
ORDER = [
    "errors", "atomic", "progress", "config", "settings", "recipe", "metrics",
    "corpus.document", "corpus.read", "corpus.clean", "corpus.measures", "corpus.presets", "corpus.explain",
    "corpus.drops", "corpus.pipeline", "corpus.report",
    "tokenizer_model", "native", "tokenizer_export", "tokenizer", "tokenizer_doctor", "tokenizer_gguf",
    "tokenizer_report", "tokenizer_train", "shards", "tokenize", "batches",
    "device", "weights", "model", "loss", "parallel", "optim", "checkpoint",
    "evaluate", "generate", "lm", "train", "plot", "pretrain", "rival", "commands", "pipeline", "cli",
]  # fmt: skip
NO_TORCH = [*ORDER[: ORDER.index("device")], "plot", "cli"]
LAZY = {("tokenizer_export", "tokenizer")}  # saving a tokenizer exports it, exporting loads one


def imports(module):
    """janeox modules that `module` imports, at any depth of its code."""
    path = ROOT / "janeox" / (module.replace(".", "/") + ".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("janeox"):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
            found |= {name.removeprefix("janeox.") for name in names}
    return found & set(ORDER) - {module}


def test_every_module_has_its_place():
    files = (ROOT / "janeox").rglob("*.py")
    names = {str(file.relative_to(ROOT / "janeox").with_suffix("")).replace("/", ".") for file in files}
    assert {name for name in names if not name.endswith("__init__")} == set(ORDER)


def test_imports_point_one_way():
    for place, module in enumerate(ORDER):
        later = {name for name in imports(module) if ORDER.index(name) > place}
        assert not later - {a for a, b in LAZY if b == module} - {b for a, b in LAZY if a == module}, (module, later)


def test_corpus_tokenizer_and_shards_need_no_torch():
    script = f"import sys, {', '.join('janeox.' + name for name in NO_TORCH)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_files_are_short():
    for folder in ("janeox", "tests", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            assert len(file.read_text(encoding="utf-8").splitlines()) <= 350, file
