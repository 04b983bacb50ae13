"""Which libraries read a tokenizer folder wrongly, and the repair of a folder that they do.

transformers and tokenizers are no dependencies of this package: what is not installed is reported as not tried.
"""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from janeox.atomic import new_file
from janeox.dialogue import CHAT_TEMPLATE
from janeox.errors import JaneoxError
from janeox.settings.tokenizer import Doctor, ExportTokenizer
from janeox.tokenizer.export import FILES, export
from janeox.tokenizer.tokenizer import Tokenizer

CONFIG = "tokenizer_config.json"
BACKUP = CONFIG + ".before-janeox"
KEPT = ("model_max_length", "chat_template")
# The card's examples first, then one string for each way in which libraries were seen to go wrong.
PROBES = (
    "吾輩は猫である",
    "  吾輩は  猫である   ",
    "გამარჯობა  吾輩は  猫である   ",
    "鬱蒼とした森で𠮟る 👨‍👩‍👧",
    "ﾜｶﾞﾊｲﾊﾈｺﾃﾞｱﾙ",
    "か\u3099 e\u0301",
    "１２３　ＡＢＣ\r\n\t。",
    "猫</s>犬[PAD]<s>",
    "<0x41><0xE3>",
    "ユーザー: こんにちは<NL>システム: ",
    "ーーーーーーーーーーーーー……………………",
)


@dataclass(frozen=True)
class Finding:
    subject: str
    """A library with its version, or a file."""
    right: bool | None
    """None: could not be tried."""
    detail: str


def examine(folder: Path | str) -> list[Finding]:
    """Static checks of the folder's files, then every library that is installed here against sentencepiece.

    Raises:
        JaneoxError: there is no sentencepiece model, or it is damaged.
    """
    folder = Path(folder)
    tokenizer = Tokenizer.load(folder)
    readers: dict[str, Callable[[Path], Reader]] = {"tokenizers": _tokenizers, "transformers": _transformers}
    return [*_static(folder, tokenizer), *(_try(name, open_, folder, tokenizer) for name, open_ in readers.items())]


def _static(folder: Path, tokenizer: Tokenizer) -> list[Finding]:
    file = tokenizer.file
    findings = [
        Finding("spiece.model", file.byte_fallback, f"byte fallback is {'on' if file.byte_fallback else 'off'}"),
        Finding(
            "spiece.model",
            not file.add_dummy_prefix,
            f"puts {'a' if file.add_dummy_prefix else 'no'} space before every text",
        ),
        Finding("spiece.model", tokenizer.eos_token_id is not None, f"</s> has id {tokenizer.eos_token_id}"),
        Finding("tokenizer.json", (folder / "tokenizer.json").is_file(), "what transformers 5 and tokenizers read"),
    ]
    named = _table(folder / CONFIG).get("tokenizer_class")
    right = named == "PreTrainedTokenizerFast"
    mend = "" if right else ", which rebuilds the pipeline; PreTrainedTokenizerFast reads tokenizer.json"
    findings.append(Finding(CONFIG, right, f"tokenizer_class is {named!r}{mend}"))
    config = _table(folder / "config.json")
    if isinstance(size := config.get("vocab_size"), int):
        detail = f"vocab_size {size:,}, the tokenizer has {tokenizer.vocab_size:,} pieces"
        findings.append(Finding("config.json", size >= tokenizer.vocab_size, detail))
    for role, id in (("bos_token_id", tokenizer.bos_token_id), ("eos_token_id", tokenizer.eos_token_id)):
        if role in config:
            detail = f"{role} {config[role]}, the tokenizer's is {id}"
            findings.append(Finding("config.json", config[role] == id, detail))
    return findings


@dataclass(frozen=True)
class Reader:
    version: str
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]


def _try(name: str, open_: Callable[[Path], Reader], folder: Path, tokenizer: Tokenizer) -> Finding:
    try:
        importlib.import_module(name)
    except ImportError:
        return Finding(name, None, "not installed here, not tried")
    subject = name
    try:
        reader = open_(folder)
        subject = f"{name} {reader.version}"
        return Finding(subject, *_compare(reader, tokenizer))
    except BaseException as error:  # whatever a foreign library raises over a foreign folder is the finding
        # A panic of a library in Rust is no Exception; Ctrl-C is none either, and goes on.
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        return Finding(subject, False, f"fails on the folder: {type(error).__name__}: {str(error)[:200]}")


def _compare(reader: Reader, tokenizer: Tokenizer) -> tuple[bool, str]:
    """(whether the reader is right, the finding)"""
    for text in PROBES:
        expected = tokenizer.encode(text)
        if (got := reader.encode(text)) != expected:
            return False, f"{text!r} becomes {_pieces(tokenizer, got)}, not {tokenizer.tokenize(text)}"
        if (decoded := reader.decode(expected)) != tokenizer.decode(expected):
            return False, f"the ids of {text!r} are decoded to {decoded!r}"
    return True, f"equals sentencepiece on {len(PROBES)} hard strings"


def _pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.file.pieces[id].text if id < len(tokenizer) else f"(id {id})" for id in ids]


def _tokenizers(folder: Path) -> Reader:
    import tokenizers

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError("no tokenizer.json")
    plain = tokenizers.Tokenizer.from_file(str(file))
    return Reader(tokenizers.__version__, lambda text: plain.encode(text, add_special_tokens=False).ids, plain.decode)


def _transformers(folder: Path) -> Reader:
    import transformers

    # As the model card asks for it; transformers 5 ignores the option.
    loaded = transformers.AutoTokenizer.from_pretrained(str(folder), use_fast=False)

    def decode(ids: list[int]) -> str:
        return str(loaded.decode(ids))

    return Reader(transformers.__version__, lambda text: loaded.encode(text, add_special_tokens=False), decode)


def run_doctor(settings: Doctor) -> None:
    """The verb `doctor`: a table of findings.

    Raises:
        JaneoxError: something is wrong with the folder (so that the exit status is 1), or it cannot be examined.
    """
    findings = examine(settings.folder)
    table = Table(title=str(settings.folder))
    for column in ("", "what", "finding"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        mark = {True: "right", False: "WRONG", None: "not tried"}[finding.right]
        table.add_row(mark, finding.subject, _escaped(finding.detail))
    Console().print(table)
    wrong = sum(finding.right is False for finding in findings)
    if wrong:
        raise JaneoxError(f"{settings.folder}: {wrong} wrong; `janeox export-tokenizer` mends what files can mend")


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")  # rich reads [PAD] as markup


def repair(folder: Path | str, chat_template: str = "") -> list[str]:
    """Writes the files for other libraries beside a folder's sentencepiece model; returns what changed, a line each.

    A tokenizer_config.json that was there is kept as tokenizer_config.json.before-janeox, the oldest one only; its
    `model_max_length` and `chat_template` live on in the new one, unless another `chat_template` is given.

    Raises:
        JaneoxError: as `export`.
    """
    folder = Path(folder)
    before = {name: _bytes(folder / name) for name in FILES}
    former, old = _table(folder / CONFIG), before[CONFIG]
    changes = []
    named = former.get("tokenizer_class")
    if old is not None and named != "PreTrainedTokenizerFast" and not (folder / BACKUP).exists():
        with new_file(folder / BACKUP) as partial:  # first of all, so that a kill loses nothing
            partial.write_bytes(old)
        changes.append(f"{BACKUP}: the former one, which named the class {named!r}")
    export(folder, chat_template)
    if kept := {key: former[key] for key in KEPT if key in former and not (key == "chat_template" and chat_template)}:
        with new_file(folder / CONFIG) as partial:
            table = json.dumps(_table(folder / CONFIG) | kept, ensure_ascii=False, indent=2)
            partial.write_text(table + "\n", encoding="utf-8")
    for name in FILES:
        if before[name] is None:
            changes.append(f"{name}: new")
        elif before[name] != _bytes(folder / name):
            changes.append(f"{name}: replaced")
    return changes


def run_export_tokenizer(settings: ExportTokenizer) -> None:
    """The verb `export-tokenizer`: repairs a folder and says what changed."""
    for line in repair(settings.folder, CHAT_TEMPLATE if settings.dialogue else "") or ["nothing to change"]:
        print(f"{settings.folder}: {line}")


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _table(file: Path) -> dict[str, Any]:
    """A JSON file's table; empty where there is none that can be read."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}
