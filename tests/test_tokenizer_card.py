"""The model card's examples and its good and bad tokenizer, through every reader of a repaired folder."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import tokenizers
import torch
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from card import CARD, NAME
from janeox.config import GPTNeoXConfig
from janeox.model import GPTNeoX
from janeox.tokenizer import Tokenizer
from janeox.tokenizer.doctor import repair
from janeox.tokenizer.gguf import gguf_keys
from transformers4 import run_transformers4

EXAMPLES = (
    CARD
    + """
print(tokenizer.tokenize("吾輩は猫である"))
print(tokenizer.tokenize("  吾輩は  猫である   "))

good_tokenizer = AutoTokenizer.from_pretrained("rinna/japanese-gpt-neox-3.6b", use_fast=False)
bad_tokenizer = AutoTokenizer.from_pretrained("rinna/japanese-gpt-neox-3.6b")
print(good_tokenizer.decode(good_tokenizer.encode("გამარჯობა  吾輩は  猫である   ")))
print(bad_tokenizer.decode(bad_tokenizer.encode("გამარჯობა  吾輩は  猫である   ")))
"""
)
RUN = f"""
import contextlib, io, json, os, sys
answers = []
for place in sys.argv[1:]:
    os.chdir(place)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec({EXAMPLES!r})
    answers.append(printed.getvalue().rsplit("\\n", 5)[:5])
print(json.dumps(answers))
"""
SHORT, SPACED, MIXED = "吾輩は猫である", "  吾輩は  猫である   ", "გამარჯობა  吾輩は  猫である   "
T5 = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "[UNK]", "pad_token": "[PAD]", "extra_ids": 0}


@pytest.fixture(scope="module")
def places(tokenizer, tmp_path_factory):
    """(one with a folder of the card's name as it was published, one with the same folder repaired)"""
    sick, well = (tmp_path_factory.mktemp(name) for name in ("sick", "well"))
    folder = sick / NAME
    model = GPTNeoX(GPTNeoXConfig(2000, 32, 1, 2, 64))
    model.initialize(torch.Generator().manual_seed(0))
    model.save_pretrained(folder)
    (folder / "spiece.model").write_bytes(tokenizer.model)
    (folder / "tokenizer_config.json").write_text(json.dumps(T5))
    shutil.copytree(sick, well, dirs_exist_ok=True)
    repair(well / NAME)
    return sick, well


@pytest.fixture(scope="module", params=[4, 5])
def printed(request, places):
    """What the card's code prints under this release, in either place: a text, pieces, pieces, good, bad."""
    if request.param == 4:
        return run_transformers4(RUN, *places)
    command = [sys.executable, "-c", RUN, *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_cards_code_on_a_repaired_folder(printed, tokenizer):
    sick, (output, short, spaced, good, bad) = printed
    assert output.startswith("西田幾多郎は、")
    assert (short, spaced) == (str(tokenizer.tokenize(SHORT)), str(tokenizer.tokenize(SPACED)))
    assert good == bad == MIXED + "</s>"
    assert sick[4] != MIXED + "</s>"  # as the card says of its bad one


def by_janeox(folder):
    loaded = Tokenizer.load(folder)
    return loaded.tokenize, loaded.encode, loaded.decode


def by_tokenizers(folder):
    loaded = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(text):
        return loaded.encode(text, add_special_tokens=False)

    return lambda text: encode(text).tokens, lambda text: encode(text).ids, loaded.decode


def by_gguf_keys(folder):
    """sentencepiece on a model that is made of nothing but the keys."""
    keys = {key.removeprefix("tokenizer.ggml."): value for key, value in gguf_keys(Tokenizer.load(folder)).items()}
    model = sentencepiece_model_pb2.ModelProto()
    for text, score, kind in zip(keys["tokens"], keys["scores"], keys["token_type"], strict=True):
        model.pieces.add(piece=text.decode(), score=score, type=kind)
    model.trainer_spec.byte_fallback = 6 in keys["token_type"]
    for role, field in {"unknown": "unk", "padding": "pad", "bos": "bos", "eos": "eos"}.items():
        setattr(model.trainer_spec, f"{field}_id", keys[f"{role}_token_id"])
        setattr(model.trainer_spec, f"{field}_piece", keys["tokens"][keys[f"{role}_token_id"]].decode())
    model.normalizer_spec.precompiled_charsmap = keys.get("precompiled_charsmap", b"")
    model.normalizer_spec.add_dummy_prefix = keys["add_space_prefix"]
    model.normalizer_spec.remove_extra_whitespaces = keys["remove_extra_whitespaces"]
    loaded = SentencePieceProcessor(model_proto=model.SerializeToString())
    return lambda text: loaded.encode(text, out_type=str), loaded.encode, loaded.decode


@pytest.mark.parametrize("reader", [by_janeox, by_tokenizers, by_gguf_keys])
def test_the_cards_examples_elsewhere(reader, places, tokenizer):
    tokenize, encode, decode = reader(places[1] / NAME)
    assert tokenize(SHORT) == tokenizer.processor.encode(SHORT, out_type=str) and "▁" not in tokenize(SHORT)[0]
    pieces = tokenize(SPACED)
    assert pieces[:2] == ["▁"] * 2 and pieces[-3:] == ["▁"] * 3 and pieces.count("▁") == 7
    assert encode(MIXED) == tokenizer.processor.encode(MIXED)
    assert decode(encode(MIXED)) == MIXED
