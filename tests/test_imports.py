"""Imports point one way, and only what computes with tensors imports torch."""

import ast
import subprocess
import sys

from runs import ROOT


def package(name, modules):
    return [f"{name}.{module}" for module in modules.split()]


# Each module may import those above it.
ORDER = [
    "errors", "atomic", "progress", "model_config", "config", "native",
    *package("settings", "corpus tokenizer train run evaluate generate native tune serve"),
    "recipe",
    *package("corpus", "document unpack download parquet rows read clean words characters measures figures word_lists"),
    *package("corpus", "personal presets cleaner explain near contamination tally drops pieces repeats"),
    *package("corpus", "page stages pipeline cluster report"),
    *package("tokenizer", "model_file charsmap encoder export tokenizer"), "dialogue",
    *package("tokenizer", "doctor gguf report train"),
    *package("data", "shards tokenize megatron batches"),
    "device", "weights", "cache", "native.training", "products", "attention", "branches", "model",
    *package("train", "metrics cost loss memory parallel optim checkpoint"),
    *package("evaluate", "score rival published scaling"),
    *package("engine", "backend packing pages packed_file native_library native_backend limits"),
    *package("engine", "triton_kernels gpu_weights gpu_backend torch_backend"),
    *package("engine", "sampling stop lookup pace slots text beam choosing draft engine"),
    *package("evaluate", "backend"),
    "lm",
    *package("train", "loop plot fp8 pretrain trial plan"),
    *package("evaluate", "harness tasks.data tasks.answers tasks.summaries tasks_command"),
    *package("tune", "start lora sft shared_prompts losses pairs reward_model reward dpo rollout on_policy"),
    *package("tune", "ppo grpo judge chat"),
    *package("engine", "command"),
    *package("evaluate", "command reference page compare"),
    *package("engine", "quantize bench"),
    *package("serve", "worker protocol answers limits connection metrics app command"),
    "pipeline",
    *package("evaluate", "ladder"),
    "cli",
]  # fmt: skip
NO_TORCH = [*ORDER[: ORDER.index("device")], "train.plot", "cli"]
LAZY = {("tokenizer.export", "tokenizer.tokenizer")}  # saving a tokenizer exports it, exporting loads one


def imports(module):
    """janeox modules that `module` imports, at any depth of its code."""
    path = ROOT / "janeox" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("janeox"):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
            found |= {name.removeprefix("janeox.") for name in names}
            if node.module == "janeox.tokenizer":
                found.add("tokenizer.tokenizer")  # which the package hands on
    return found & set(ORDER) - {module}


def test_every_module_has_its_place():
    files = (ROOT / "janeox").rglob("*.py")
    names = {str(file.relative_to(ROOT / "janeox").with_suffix("")).replace("/", ".") for file in files}
    packages = {name.removesuffix(".__init__") for name in names if name.endswith("__init__")} - {"native"}
    assert {name.removesuffix(".__init__") for name in names} - packages - {"__init__"} == set(ORDER)


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
