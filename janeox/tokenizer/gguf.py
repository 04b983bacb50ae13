"""The `tokenizer.ggml.*` keys with which a GGUF file carries a sentencepiece unigram model.

llama.cpp names this kind of tokenizer "t5" (UGM). It ignores byte fallback: a character without a piece becomes the
unknown token there, whatever is written here (llama.cpp issue 28862, seen 2026-09).
"""

from typing import Any

from janeox.errors import JaneoxError
from janeox.tokenizer.model_file import UNIGRAM
from janeox.tokenizer.tokenizer import Tokenizer


def gguf_keys(tokenizer: Tokenizer) -> dict[str, Any]:
    """Key → value. No `</s>` is appended, so that a prompt goes on; piece types have the same numbers in both formats.

    Raises:
        JaneoxError: the model is no unigram model.
    """
    file = tokenizer.file
    if file.algorithm != UNIGRAM:
        raise JaneoxError(f"{tokenizer.where}: only unigram models can be written to GGUF; this one is of another kind")
    keys: dict[str, Any] = {
        "model": "t5",
        "pre": "default",
        "tokens": [piece.text.encode("utf-8") for piece in file.pieces],
        "scores": [piece.score for piece in file.pieces],
        "token_type": [int(piece.type) for piece in file.pieces],
        "add_space_prefix": file.add_dummy_prefix,
        "remove_extra_whitespaces": file.remove_extra_whitespaces,
        "add_bos_token": False,
        "add_eos_token": False,
    }
    if file.charsmap:
        keys["precompiled_charsmap"] = file.charsmap
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
    }
    keys |= {f"{role}_token_id": id for role, id in ids.items() if id is not None}
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
