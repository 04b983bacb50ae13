"""What the READMEs say can be typed: their commands parse, their Python runs, their links and files exist."""

import re
import shlex

import pytest
from torch.distributed.run import config_from_args, get_args_parser

from janeox import cli
from runs import ROOT, janeox, write_recipe

READMES = ["README.md", "README.ja.md"]


def blocks(name, language):
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.mark.parametrize("name", READMES)
def test_commands_are_valid(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    makefile = (ROOT / "Makefile").read_text()
    seen = set()
    for line in "".join(blocks(name, "sh")).splitlines():
        program, *arguments = shlex.split(line)
        if program == "make":
            assert f"\n{arguments[0]}:" in makefile
            seen.add(arguments[0])
            continue
        if program == ".venv/bin/torchrun":
            launcher = config_from_args(get_args_parser().parse_args(arguments))[2]
            program, arguments = ".venv/bin/janeox", launcher[launcher.index("janeox.cli") + 1 :]
        assert program == ".venv/bin/janeox"
        if "--help" in arguments:
            assert janeox(*arguments).returncode == 0
        else:
            assert cli.parse(cli.VERBS[arguments[0]], "janeox", arguments[1:])
        seen.add(arguments[0])
    assert {"run", "test", "bench", "generate", "pretrain"} <= seen


def test_both_languages_show_the_same_commands_and_results():
    one, other = ([blocks(name, language) for language in ("sh", "text")] for name in READMES)
    assert one == other
    strip = [re.sub(r"#.*", "", "".join(blocks(name, "python"))) for name in READMES]
    assert strip[0] == strip[1]


def test_python_runs(tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, context=128)
    assert janeox("run", recipe, "--out", tmp_path / "runs" / "tiny-cpu", "train.tokens=512").returncode == 0
    monkeypatch.chdir(tmp_path)
    for code in blocks("README.md", "python"):
        exec(code, {})
    assert len(capsys.readouterr().out.splitlines()) >= 2


@pytest.mark.parametrize(
    "name",
    [
        *READMES,
        "docs/design.md",
        "docs/corpora.md",
        "docs/training.md",
        "docs/cpu.md",
        "docs/evaluation.md",
        "docs/serving.md",
        "data/README.md",
    ],
)
def test_links_and_verbs_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            file, _, heading = target.partition("#")
            found = (ROOT / name).parent / file
            assert found.exists(), target
            assert not heading or f"## {heading.capitalize()}" in found.read_text(encoding="utf-8")
    if name in READMES:
        assert set(cli.VERBS) - {"run"} == set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE))
