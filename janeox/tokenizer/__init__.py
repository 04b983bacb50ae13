"""The tokenizer: sentencepiece's ids, in janeox and in every other library that opens the folder."""

from janeox.tokenizer.tokenizer import StreamDecoder, Tokenizer

__all__ = ["StreamDecoder", "Tokenizer"]
