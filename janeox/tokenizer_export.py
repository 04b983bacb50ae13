"""From `spiece.model`, the files with which transformers 4 and 5 and `tokenizers` give sentencepiece's ids.

The class named in tokenizer_config.json decides what transformers does: any T5 class rebuilds the pipeline from the
vocabulary and gets it wrong, `PreTrainedTokenizerFast` takes tokenizer.json as it stands, whatever `use_fast` says.
"""

import base64
import json
from pathlib import Path
from typing import Any

from janeox.atomic import new_file
from janeox.errors import JaneoxError
from janeox.tokenizer import SPACE, Tokenizer
from janeox.tokenizer_model import UNIGRAM, PieceType

# Score of pieces that no text may match. Hugging Face's unigram searches control and byte pieces in the text as well;
# with this score any spelling in ordinary pieces beats them. Its penalty for unknown text is relative to the lowest
# score and grows with it, which changes nothing: unknown text is taken only where nothing else fits.
NEVER = -1e6
ROLES = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def export(folder: Path | str) -> None:
    """Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json and spiece.vocab beside `spiece.model`.

    Existing ones are replaced. Encoding through those files appends `</s>` unless `add_special_tokens=False`, as the
    rinna series does, and reads special strings in a text as ordinary characters unless `split_special_tokens=False`.

    Raises:
        JaneoxError: there is no model, it is damaged, it is no unigram model, or the folder cannot be written.
    """
    folder = Path(folder)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.file.algorithm != UNIGRAM:
        raise JaneoxError(f"{tokenizer.where}: only unigram models can be exported; this one is of another kind")
    roles = special_tokens(tokenizer)
    _write(folder / "tokenizer.json", _json(tokenizer_json(tokenizer)))
    _write(folder / "tokenizer_config.json", _json(tokenizer_config(roles)))
    _write(folder / "special_tokens_map.json", _json(roles))
    _write(folder / "spiece.vocab", "".join(f"{p.text}\t{p.score:g}\n" for p in tokenizer.file.pieces))


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Role → piece, under transformers' names, for the roles that the model has pieces for."""
    ids = {
        "bos_token": tokenizer.bos_token_id,
        "eos_token": tokenizer.eos_token_id,
        "unk_token": tokenizer.unk_token_id,
        "pad_token": tokenizer.pad_token_id,
    }
    ids |= {role: tokenizer.control_ids.get(piece) for role, piece in ROLES.items()}
    return {role: tokenizer.file.pieces[id].text for role, id in ids.items() if id is not None}


def tokenizer_config(roles: dict[str, str]) -> dict[str, Any]:
    return roles | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,  # the default would delete spaces before punctuation
        "split_special_tokens": True,  # a user's "</s>" is four characters, not the end of the text
        "model_input_names": ["input_ids", "attention_mask"],  # GPT-NeoX takes no token types
    }


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The pipeline in the format of `tokenizers`.

    `added_tokens` names the user-defined pieces only. Control pieces listed there would be matched in every text by
    whoever reads this file without transformers; transformers takes them from tokenizer_config.json.
    """
    file = tokenizer.file
    hidden = (PieceType.CONTROL, PieceType.BYTE, PieceType.UNUSED)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(id, piece.text) for id, piece in enumerate(file.pieces) if piece.type is PieceType.USER_DEFINED
        ],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(tokenizer)},
        "pre_tokenizer": None,
        "post_processor": _appends_eos(tokenizer),
        "decoder": {"type": "Sequence", "decoders": _decoders(tokenizer)},
        "model": {
            "type": "Unigram",
            "unk_id": tokenizer.unk_token_id,
            "vocab": [[p.text, NEVER if p.type in hidden else p.score] for p in file.pieces],
            "byte_fallback": file.byte_fallback,
        },
    }


def _normalizers(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    file = tokenizer.file
    steps: list[dict[str, Any]] = []
    if file.charsmap:
        steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(file.charsmap).decode("ascii")})
    if file.remove_extra_whitespaces:
        steps.append({"type": "Replace", "pattern": {"Regex": "^ +| +$"}, "content": ""})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if file.add_dummy_prefix:
        # Not `Prepend`: an empty text gets no prefix.
        steps.append({"type": "Replace", "pattern": {"Regex": r"\A(?=[\s\S])"}, "content": " "})
    if file.escape_whitespaces:
        steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    return steps


def _decoders(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    file = tokenizer.file
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if file.add_dummy_prefix or file.remove_extra_whitespaces:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return steps


def _appends_eos(tokenizer: Tokenizer) -> dict[str, Any] | None:
    id = tokenizer.eos_token_id
    if id is None:
        return None
    eos = tokenizer.file.pieces[id].text

    def sequence(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    end = {"SpecialToken": {"id": eos, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [sequence("A", 0), end],
        "pair": [sequence("A", 0), end, sequence("B", 0), end],
        "special_tokens": {eos: {"id": eos, "ids": [id], "tokens": [eos]}},
    }


def _added(id: int, text: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": id, "content": text, **flags}


def _json(table: dict[str, Any]) -> str:
    return json.dumps(table, ensure_ascii=False, indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
