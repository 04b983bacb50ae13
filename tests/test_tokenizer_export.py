"""The exported files: transformers 4 and 5 and `tokenizers` against sentencepiece."""

import io
import json

import pytest
import sentencepiece
import tokenizers
import transformers

from hard_strings import HARD_STRINGS, generated_lines
from janeox.errors import JaneoxError
from janeox.tokenizer import Tokenizer
from janeox.tokenizer.export import export
from transformers4 import run_transformers4

# What is asked of both releases of transformers; prints JSON under transformers 4, is called under 5.
QUESTIONS = """
def answers(folder, use_fast, lines, oracle):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=use_fast)
    text = "გამარჯობა  吾輩は  猫である   "
    ids = [tokenizer.encode(line, add_special_tokens=False) for line in lines]
    return {
        "ids": ids,
        "text": [tokenizer.decode(i) for i in oracle],
        "default": [tokenizer(line)["input_ids"] for line in lines[:50]],
        "keys": sorted(tokenizer("猫")),
        "card": [tokenizer.tokenize("吾輩は猫である"), tokenizer.tokenize("  吾輩は  猫である   "),
                 tokenizer.decode(tokenizer.encode(text))],
        "skipped": tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True),
        "asked": tokenizer.encode("<s>猫</s>", add_special_tokens=False, split_special_tokens=False),
        "special": [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id,
                    tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id],
        "size": [len(tokenizer), tokenizer.vocab_size],
    }
"""
UNDER_TRANSFORMERS4 = (
    QUESTIONS
    + """
import json, sys
folder, file = sys.argv[1:]
lines, oracle = json.load(open(file, encoding="utf-8"))
print(json.dumps([answers(folder, fast, lines, oracle) for fast in (True, False)]))
"""
)


@pytest.fixture(scope="session")
def lines(works) -> list[str]:
    real = [line for work in works[:15] for line in work.split("\n")]
    return HARD_STRINGS + generated_lines(1000, seed=4) + real


@pytest.fixture(scope="session")
def model_folder(tokenizer_folder):
    """As in a folder with a model, whose config.json has a say in which class transformers takes."""
    config = {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": 2000}
    (tokenizer_folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tokenizer_folder


def check(got: dict, tokenizer: Tokenizer, lines: list[str]) -> None:
    expected = [tokenizer.processor.encode(line) for line in lines]
    for line, ids, text, own in zip(lines, got["ids"], got["text"], expected, strict=True):
        assert ids == own, line
        assert text == tokenizer.processor.decode(own), line
    assert got["default"] == [[*ids, 3] for ids in expected[:50]]
    assert got["keys"] == ["attention_mask", "input_ids"]
    assert got["card"][:2] == [tokenizer.tokenize("吾輩は猫である"), tokenizer.tokenize("  吾輩は  猫である   ")]
    assert got["card"][2] == got["skipped"] + "</s>" == "გამარჯობა  吾輩は  猫である   </s>"
    assert got["asked"] == tokenizer.encode("<s>猫</s>", special=True)
    assert got["special"] == [0, 1, 2, 3, 4, 5, 6]
    assert got["size"] == [2000, 2000]


def test_transformers5(tokenizer, model_folder, lines):
    assert transformers.__version__.startswith("5.")
    space: dict = {}
    exec(QUESTIONS, space)
    oracle = [tokenizer.encode(line) for line in lines]
    for fast in (True, False):
        check(space["answers"](str(model_folder), fast, lines, oracle), tokenizer, lines)


def test_transformers4(tokenizer, model_folder, lines, tmp_path):
    file = tmp_path / "lines.json"
    file.write_text(json.dumps([lines, [tokenizer.encode(line) for line in lines]]), encoding="utf-8")
    for got in run_transformers4(UNDER_TRANSFORMERS4, model_folder, file):
        check(got, tokenizer, lines)


def test_tokenizers_alone(tokenizer, tokenizer_folder, lines):
    plain = tokenizers.Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    for line in lines:
        ids = tokenizer.encode(line)
        assert plain.encode(line, add_special_tokens=False).ids == ids, line
        assert plain.encode(line).ids == [*ids, 3], line
        assert plain.decode(ids) == tokenizer.decode(ids), line
    assert plain.encode("猫", "犬").ids == [*tokenizer.encode("猫"), 3, *tokenizer.encode("犬"), 3]


@pytest.mark.parametrize(
    "options", [{}, {"user_defined_symbols": ["<NL>"]}, {"add_dummy_prefix": False}, {"byte_fallback": False}]
)
def test_models_by_other_makers(works, tmp_path, options):
    """sentencepiece's defaults: no ASCII in the vocabulary, a space put first, spaces merged, other special ids."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(works[:10]).split("\n")),
        model_writer=model,
        minloglevel=2,
        num_threads=2,
        **(
            {"vocab_size": 2000, "character_coverage": 0.98, "byte_fallback": True, "hard_vocab_limit": False} | options
        ),
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    export(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = [
        "</s>",
        "a<s>b</s><unk>",
        "<0x41><0xE3>",
        "ユーザー: 猫<NL>システム: ",
        " 吾輩は  猫 ",
        "▁猫▁ ▁",
        "鬱</s>鬱鬱a",
        "",
        " ",
        *works[12].split("\n"),
    ]
    for text in texts:
        assert plain.encode(text, add_special_tokens=False).ids == tokenizer.encode(text), text
        assert plain.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text)), text
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.encode("猫</s>") == [*tokenizer.encode("猫</s>"), 2]
    assert loaded.pad_token is None


def test_files(tokenizer, tokenizer_folder):
    written = {path.name for path in tokenizer_folder.iterdir()} - {"config.json"}
    names = {"spiece.model", "spiece.vocab", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert written == names
    rows = (tokenizer_folder / "spiece.vocab").read_text(encoding="utf-8").split("\n")
    assert rows[:4] == ["[PAD]\t0", "[UNK]\t0", "<s>\t0", "</s>\t0"] and len(rows) == 2001


def test_export_again_gives_the_same_bytes(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    export(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_only_unigram_models(works, tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(works[0].split("\n")), model_writer=model, model_type="char", minloglevel=2,
        vocab_size=100, hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "spiece.model").write_bytes(model.getvalue())
    with pytest.raises(JaneoxError, match=r"spiece\.model: only unigram models can be exported"):
        export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["spiece.model"]
