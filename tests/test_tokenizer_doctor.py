"""Folders as the rinna series has them: what is wrong with them is found, and the repair mends it."""

import io
import json

import pytest
import sentencepiece
import transformers

from janeox.errors import JaneoxError
from janeox.tokenizer import doctor
from janeox.tokenizer.charsmap import replace
from janeox.tokenizer.doctor import BACKUP, examine, repair
from runs import janeox
from transformers4 import run_transformers4

T5 = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "[UNK]", "pad_token": "[PAD]", "extra_ids": 0}


@pytest.fixture
def rinna_like(tokenizer, tmp_path):
    """spiece.model, config.json and the T5 class, as published."""
    (tmp_path / "spiece.model").write_bytes(tokenizer.model)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(T5))
    config = {"model_type": "gpt_neox", "vocab_size": 2000, "bos_token_id": 2, "eos_token_id": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def wrong(folder):
    return {finding.subject.split()[0] for finding in examine(folder) if finding.right is False}


def test_a_published_folder_is_wrong_and_the_repair_mends_it(rinna_like, tokenizer):
    assert wrong(rinna_like) == {"tokenizer.json", "tokenizer_config.json", "tokenizers", "transformers"}
    changes = repair(rinna_like)
    assert "tokenizer.json: new" in changes and "tokenizer_config.json: replaced" in changes
    assert json.loads((rinna_like / BACKUP).read_text()) == T5
    assert wrong(rinna_like) == set() and repair(rinna_like) == []
    card = transformers.AutoTokenizer.from_pretrained(rinna_like, use_fast=False)
    text = "გამარჯობა  吾輩は  猫である   "
    assert card.decode(card.encode(text)) == text + "</s>"


def test_verbs(rinna_like):
    sick = janeox("doctor", rinna_like)
    assert sick.returncode == 1 and "T5Tokenizer" in sick.stdout and "export-tokenizer" in sick.stderr
    assert "tokenizer_config.json: replaced" in janeox("export-tokenizer", rinna_like).stdout
    well = janeox("doctor", rinna_like)
    assert well.returncode == 0 and "WRONG" not in well.stdout, well.stdout
    assert "nothing to change" in janeox("export-tokenizer", rinna_like).stdout


UNDER_TRANSFORMERS4 = """
import json, sys
from janeox.tokenizer.doctor import examine
found = {finding.subject: finding.right for finding in examine(sys.argv[1])}
print(json.dumps([right for subject, right in found.items() if subject.startswith("transformers 4.")]))
"""


def test_under_transformers4(rinna_like):
    assert run_transformers4(UNDER_TRANSFORMERS4, rinna_like) == [False]
    repair(rinna_like)
    assert run_transformers4(UNDER_TRANSFORMERS4, rinna_like) == [True]


def test_a_panic_is_a_finding_and_ctrl_c_is_not(rinna_like, monkeypatch):
    repair(rinna_like)
    file = rinna_like / "tokenizer.json"
    pipeline = json.loads(file.read_text())
    steps = [replace("x", regex=r"\A(?=[\s\S])"), {"type": "NFC"}]  # tokenizers 0.23.3 panics over this
    file.write_text(json.dumps(pipeline | {"normalizer": {"type": "Sequence", "normalizers": steps}}))
    details = [f.detail for f in examine(rinna_like) if f.right is False]
    assert len(details) == 2 and all("fails on the folder: PanicException" in detail for detail in details)

    def interrupted(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "_tokenizers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        examine(rinna_like)


def test_what_is_not_installed_is_said(rinna_like, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    assert [f.right for f in examine(rinna_like) if f.subject == "transformers"] == [None]


def test_static_findings(works, tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(works[0].split("\n")), model_writer=model, vocab_size=1000, hard_vocab_limit=False,
        minloglevel=2,
    )  # fmt: skip
    (tmp_path / "spiece.model").write_bytes(model.getvalue())
    (tmp_path / "config.json").write_text('{"vocab_size": 7, "eos_token_id": 9}')
    (tmp_path / "tokenizer_config.json").write_text("{damaged")
    details = "\n".join(finding.detail for finding in examine(tmp_path) if finding.right is False)
    for part in ("byte fallback is off", "puts a space", "vocab_size 7", "eos_token_id 9", "tokenizer_class is None"):
        assert part in details
    with pytest.raises(JaneoxError, match=r"no spiece\.model"):
        examine(tmp_path / "..")
