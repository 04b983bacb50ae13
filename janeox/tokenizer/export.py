"""From `spiece.model`, the files with which transformers 4 and 5 and `tokenizers` give sentencepiece's ids.

The class named in tokenizer_config.json decides what transformers does: any T5 class rebuilds the pipeline from the
vocabulary and gets it wrong, `PreTrainedTokenizerFast` takes tokenizer.json as it stands, whatever `use_fast` says.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from janeox.atomic import new_file
from janeox.errors import JaneoxError
from janeox.tokenizer import charsmap
from janeox.tokenizer.charsmap import character_class, replace
from janeox.tokenizer.model_file import UNIGRAM, ModelFile, Piece, PieceType
from janeox.tokenizer.tokenizer import SPACE, Tokenizer

# Score of pieces that no text may match. Hugging Face's unigram searches control and byte pieces in the text as well;
# with this score any spelling in ordinary pieces beats them. Its penalty for unknown text is relative to the lowest
# score and grows with it, which changes nothing: unknown text is taken only where nothing else fits.
NEVER = -1e6
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.vocab")
HIDDEN = (PieceType.UNKNOWN, PieceType.CONTROL, PieceType.UNUSED, PieceType.BYTE)
UNKNOWN_FOUND = "\ufff0"  # in no piece; stands for the unknown piece until the first space has been taken off
ROLES = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def export(folder: Path | str, chat_template: str = "") -> None:
    """Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json and spiece.vocab beside `spiece.model`.

    Existing ones are replaced. Encoding through those files appends `</s>` unless `add_special_tokens=False`, as the
    rinna series does, and reads special strings in a text as ordinary characters unless `split_special_tokens=False`.
    A `chat_template` (Jinja; see dialogue.py) marks a model that was tuned for dialogue.

    Raises:
        JaneoxError: there is no model, it is damaged, it is no unigram model, it has user-defined pieces that other
            libraries cannot keep, or the folder cannot be written.
    """
    folder = Path(folder)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.file.algorithm != UNIGRAM:
        raise JaneoxError(f"{tokenizer.where}: only unigram models can be exported; this one is of another kind")
    roles = special_tokens(tokenizer)
    _write(folder / "tokenizer.json", _json(tokenizer_json(tokenizer)))
    _write(folder / "tokenizer_config.json", _json(tokenizer_config(roles, chat_template)))
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


def tokenizer_config(roles: dict[str, str], chat_template: str = "") -> dict[str, Any]:
    template = {"chat_template": chat_template} if chat_template else {}
    return (
        roles
        | template
        | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,  # the default would delete spaces before punctuation
            "split_special_tokens": True,  # a user's "</s>" is four characters, not the end of the text
            "model_input_names": ["input_ids", "attention_mask"],  # GPT-NeoX takes no token types
        }
    )


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The pipeline in the format of `tokenizers`.

    `added_tokens` stays empty. Control pieces listed there would be matched in every text by whoever reads this file
    without transformers; transformers takes them from tokenizer_config.json.
    """
    file = tokenizer.file
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(tokenizer)},
        "pre_tokenizer": _keeps_apart(file),
        "post_processor": _appends_eos(tokenizer),
        "decoder": {"type": "Sequence", "decoders": _decoders(tokenizer)},
        "model": {
            "type": "Unigram",
            "unk_id": tokenizer.unk_token_id,
            "vocab": [[piece.text, score] for piece, score in zip(file.pieces, _scores(file), strict=True)],
            "byte_fallback": file.byte_fallback,
        },
    }


def _scores(file: ModelFile) -> list[float]:
    def score(piece: Piece) -> float:
        if piece.type in HIDDEN:
            return NEVER
        if piece.type is PieceType.USER_DEFINED:  # sentencepiece's own formula, by which they win over everything
            return float(np.float32(0.1 * (len(piece.text.encode("utf-8")) - 1)))
        return piece.score

    return [score(piece) for piece in file.pieces]


def _keeps_apart(file: ModelFile) -> dict[str, Any] | None:
    """Splits a hidden piece's string in a text where `NEVER` cannot hide it: a character of it has no piece of its own.

    An unknown character costs more than any piece, so `</s>` would win over its spelling if `<` were unknown. Cutting
    around that character there is harmless: no ordinary piece takes it together with others. Without byte fallback a
    run of unknown characters is one unknown piece, so there the cuts go around the run.
    """
    known = {piece.text for piece in file.pieces if piece.type not in HIDDEN}
    unknown = "[^" + character_class(text for text in known if len(text) == 1)[1:]
    patterns = []
    for text in (piece.text for piece in file.pieces if piece.type in HIDDEN):
        start = next((i for i, character in enumerate(text) if character not in known), None)
        if start is None:
            continue
        stop = next((i for i in range(start, len(text)) if text[i] in known), len(text))
        left = right = ""
        if file.byte_fallback or stop - start == len(text):
            stop = start + 1
        else:
            left = f"(?<!{unknown}){unknown}*" if start == 0 else ""
            right = f"{unknown}*" if stop == len(text) else ""
        before, run, after = map(re.escape, (text[:start], text[start:stop], text[stop:]))
        before, after = (f"(?<={before})" if before else ""), (f"(?={after})" if after else "")
        patterns.append(before + left + run + right + after)
    if not patterns:
        return None
    return {"type": "Split", "pattern": {"Regex": "|".join(patterns)}, "behavior": "Isolated", "invert": False}


def _normalizers(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    file = tokenizer.file
    kept = tuple(piece.text for piece in file.pieces if piece.type is PieceType.USER_DEFINED)
    if file.remove_extra_whitespaces and any("  " in piece for piece in kept):
        raise JaneoxError(
            f"{tokenizer.where}: cannot be exported: a user-defined piece holds two spaces, and the model merges spaces"
        )
    try:
        steps = [*charsmap.steps(file.charsmap, kept)] if file.charsmap else []
    except ValueError as error:
        raise JaneoxError(f"{tokenizer.where}: {error}") from error
    if file.remove_extra_whitespaces:
        ending = f"[ {SPACE}]+" if file.escape_whitespaces else " +"  # it also takes off what was ▁ in the text
        steps += [replace("", regex=rf"\A +|{ending}\z"), replace(" ", regex=" {2,}")]
    if file.add_dummy_prefix:
        steps.append(replace(" ", regex=r"\A(?=[\s\S])"))  # not `Prepend`: an empty text gets no prefix
    if file.escape_whitespaces:
        steps.append(replace(SPACE, string=" "))
    return steps


def _decoders(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    file = tokenizer.file
    steps: list[dict[str, Any]] = [
        replace(" ", string=SPACE),
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if file.add_dummy_prefix or file.remove_extra_whitespaces:
        most = len(file.pieces) if file.remove_extra_whitespaces else 1  # no text begins with as many spaces
        steps.append({"type": "Strip", "content": " ", "start": most, "stop": 0})
    if not file.byte_fallback:  # with it, no text holds unknown pieces, but any character may be spelled in bytes
        unknown = re.escape(file.pieces[tokenizer.unk_token_id].text)
        steps.insert(1, replace(UNKNOWN_FOUND, regex=rf"\A{unknown}\z"))
        steps.append(replace(file.unknown_surface, string=UNKNOWN_FOUND))
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


def _json(table: dict[str, Any]) -> str:
    return json.dumps(table, ensure_ascii=False, indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
