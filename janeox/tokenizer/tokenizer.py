"""Text ↔ ids with sentencepiece underneath, and decoding of a stream of ids into whole characters."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import sentencepiece

from janeox.atomic import new_file
from janeox.errors import JaneoxError
from janeox.tokenizer.encoder import NativeEncoder, NotCovered
from janeox.tokenizer.model_file import ModelFile, PieceType, read_model

MODEL_NAMES = ("spiece.model", "tokenizer.model")
SPACE = "▁"  # how sentencepiece writes a space inside a piece
REPLACEMENT = "\ufffd"
_CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]|.", re.DOTALL)  # a pair of surrogates is one character


class Tokenizer:
    """A sentencepiece model. `Tokenizer.load(path)` reads one; `train_tokenizer` makes one."""

    def __init__(self, model: bytes, where: str = "tokenizer"):
        """`model` holds the bytes of a `spiece.model`; `where` names it in errors.

        Raises:
            JaneoxError: the bytes are damaged or are no sentencepiece model.
        """
        try:
            self.file: ModelFile = read_model(model)
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (ValueError, RuntimeError) as error:
            raise JaneoxError(
                f"{where}: damaged, or not a sentencepiece model ({len(model):,} bytes: {error}); fetch it again"
            ) from error
        self.model = model
        self.where = where

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Opens a folder that holds `spiece.model` (or `tokenizer.model`), or such a file itself.

        Raises:
            JaneoxError: there is none, it cannot be read, or it is damaged.
        """
        path = Path(path)
        file = path
        if path.is_dir():
            found = [path / name for name in MODEL_NAMES if (path / name).exists()]
            if not found:
                raise JaneoxError(f"{path}: no {' or '.join(MODEL_NAMES)} in this folder")
            file = found[0]
        try:
            return cls(file.read_bytes(), str(file))
        except OSError as error:
            raise JaneoxError(f"{file}: cannot be read ({error.strerror})") from error

    def save(self, folder: Path | str, chat_template: str = "") -> None:
        """Writes `spiece.model` and the files with which other libraries give the same ids (see tokenizer.export).

        Raises:
            JaneoxError: the folder cannot be written, or other libraries cannot express this kind of model.
        """
        from janeox.tokenizer.export import export

        folder = Path(folder)
        with new_file(folder / MODEL_NAMES[0]) as partial:
            partial.write_bytes(self.model)
        export(folder, chat_template)

    def __len__(self) -> int:
        return len(self.file.pieces)

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[bytes, str]]:
        return Tokenizer, (self.model, self.where)

    @property
    def vocab_size(self) -> int:
        return len(self.file.pieces)

    @property
    def bos_token_id(self) -> int | None:
        return _present(self.processor.bos_id())

    @property
    def eos_token_id(self) -> int | None:
        return _present(self.processor.eos_id())

    @property
    def unk_token_id(self) -> int:
        return self.processor.unk_id()

    @property
    def pad_token_id(self) -> int | None:
        return _present(self.processor.pad_id())

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name this model: equal models, equal ids."""
        return hashlib.sha256(self.model).hexdigest()[:16]

    @cached_property
    def control_ids(self) -> dict[str, int]:
        """String → id of the pieces that stand for no text: `<s>`, `</s>`, `[PAD]`, …"""
        return {piece.text: id for id, piece in enumerate(self.file.pieces) if piece.type is PieceType.CONTROL}

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of `text`; neither `<s>` nor `</s>` is added.

        `</s>`, `[PAD]` or `<0x41>` in `text` are spelled out as the characters that they are, so no user can inject a
        control id. With `special=True` the strings in `control_ids` become their ids, each stretch between them being
        encoded by itself. (A piece that the model's maker declared user-defined is always one id: that is what the
        declaration means.) UTF-16 surrogates, which Python strings can hold and UTF-8 cannot, become the character
        that a pair stands for, or U+FFFD where one stands alone.
        """
        if special and self.control_ids:
            ids = []
            for part in self._control_pattern.split(text):
                ids += [self.control_ids[part]] if part in self.control_ids else self.encode(part)
            return ids
        if self.native:
            return self.native.one(text)
        return self.processor.encode(_utf8(text))

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of `text` and, for each, the (start, end) of the characters of the raw text that it came from.

        Pieces that spell one character together (bytes, or 平 and 成 from ㍻) share its span. A space that the model
        itself puts first has an empty one, and characters that its normalisation drops may lie in none.
        """
        utf8 = _utf8(text).decode("utf-8")
        found = self.processor.encode(utf8, out_type="offset_mapping")
        spans: list[tuple[int, int]] = found["offsets"]
        first = 1 if self.file.add_dummy_prefix and found["pieces"][:1] == [SPACE] else 0
        for at in range(len(spans) - 2, first - 1, -1):
            start, end = spans[at]
            if start == end == spans[at + 1][0]:
                spans[at] = spans[at + 1]
        if len(utf8) != len(text):  # surrogate pairs became one character each
            raw = [match.start() for match in _CHARACTER.finditer(text)] + [len(text)]
            spans = [(raw[start], raw[end]) for start, end in spans]
        return found["ids"], spans

    def tokenize(self, text: str) -> list[str]:
        """The pieces of `text`: a space is written ▁, a byte `<0xE3>`."""
        return self.processor.encode(_utf8(text), out_type=str)

    def batch(self, texts: Iterable[str], *, threads: int = 1) -> list[list[int]]:
        """`encode` of each text, over `threads` threads."""
        texts = list(texts)
        if not self.native:
            return self.processor.encode([_utf8(text) for text in texts], num_threads=threads)
        return self.native.lists(texts, threads)

    def arrays(self, texts: Sequence[str], *, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """`encode` of each text, as arrays: the ids of all texts end to end, and how many ids each text has (int64).

        Ids are uint16 where the vocabulary allows (at most 65,536 pieces), else int32.
        """
        if self.native:
            return self.native.encode(texts, threads)
        batch = self.batch(texts, threads=threads)
        lengths = np.fromiter(map(len, batch), np.int64, len(batch))
        dtype = np.uint16 if self.vocab_size <= 1 << 16 else np.int32
        return np.fromiter(itertools.chain.from_iterable(batch), dtype, int(lengths.sum())), lengths

    @cached_property
    def native(self) -> NativeEncoder | None:
        """The compiled encoder, or None where sentencepiece does the work; the ids are the same."""
        try:
            return NativeEncoder(self.file)
        except NotCovered:
            return None

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Text of `ids`. Control pieces give nothing, or with `special=True` their strings.

        Bytes that are no UTF-8 become U+FFFD each. `decode(encode(text)) == text` where the model normalises nothing
        (`normalization = "identity"`), except that a literal ▁ (U+2581) comes back as a space.

        Raises:
            JaneoxError: an id lies outside the vocabulary.
        """
        ids = [self._checked(id) for id in ids]
        if not special:
            return self.processor.decode(ids)
        controls = set(self.control_ids.values())
        texts: list[str] = []
        run: list[int] = []
        for id in ids:
            if id in controls:
                texts += [self.processor.decode(run), self.file.pieces[id].text]
                run = []
            else:
                run.append(id)
        return "".join([*texts, self.processor.decode(run)])

    def _checked(self, id: int) -> int:
        id = int(id)
        if not 0 <= id < len(self):
            raise JaneoxError(
                f"id {id} is not in the vocabulary of {len(self):,} pieces of {self.where}; "
                "does the model belong to this tokenizer?"
            )
        return id

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.control_ids, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    @cached_property
    def surfaces(self) -> list[str | int | None]:
        """By id: a piece's text, a byte piece's value (0–255), or None for a control piece."""
        table: list[str | int | None] = []
        for piece in self.file.pieces:
            if piece.type is PieceType.CONTROL:
                table.append(None)
            elif piece.type is PieceType.BYTE:
                table.append(int(piece.text[3:5], 16))
            elif piece.type is PieceType.UNKNOWN:
                table.append(self.file.unknown_surface)
            else:
                table.append(piece.text.replace(SPACE, " "))
        return table


class StreamDecoder:
    """Decodes ids one by one into whole characters; the parts join to `tokenizer.decode` of all the ids.

    A character spelled in several byte pieces is held back until it is complete or cannot become so. Work and memory
    per id are constant.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._surfaces = tokenizer.surfaces
        self._bytes = bytearray()  # the start of an unfinished character, at most 3 bytes
        file = tokenizer.file
        # sentencepiece drops the space that it put before the text, or all of them where it trims.
        self._drops = file.add_dummy_prefix or file.remove_extra_whitespaces
        self._drops_all = file.remove_extra_whitespaces

    def push(self, id: int) -> str:
        """The text that is certain now; empty while a character is unfinished, and for control pieces.

        Raises:
            JaneoxError: the id lies outside the vocabulary.
        """
        id = self._tokenizer._checked(id)
        surface = self._surfaces[id]
        if isinstance(surface, int):
            self._bytes.append(surface)
            text = self._finished()
        else:
            text = self.flush()
            self._drops = self._drops and not text
            if surface:
                text += self._unprefixed(id, surface)
        if text:
            self._drops = False
        return text

    def flush(self) -> str:
        """What is left of an unfinished character, as one U+FFFD a byte; call it after the last id."""
        text = REPLACEMENT * len(self._bytes)
        self._bytes.clear()
        return text

    def _unprefixed(self, id: int, surface: str) -> str:
        """`surface` without the space that encoding put there."""
        if not self._drops or self._tokenizer.file.pieces[id].type is PieceType.UNKNOWN or surface[0] != " ":
            return surface
        self._drops = self._drops_all
        return surface[1:]

    def _finished(self) -> str:
        """Takes the decided characters off the pending bytes: whole ones, and U+FFFD for a byte that starts none."""
        text = ""
        while self._bytes:
            lead = self._bytes[0]
            length = 1 if lead < 0x80 else 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4
            trail = self._bytes[1:length]
            if 0x80 <= lead < 0xC2 or lead > 0xF4 or any(byte & 0xC0 != 0x80 for byte in trail):
                character, length = REPLACEMENT, 1
            elif len(self._bytes) < length:
                break
            else:
                try:
                    character = self._bytes[:length].decode("utf-8")
                except UnicodeDecodeError:  # overlong, a surrogate, or past U+10FFFF
                    character, length = REPLACEMENT, 1
            text += character
            del self._bytes[:length]
        return text


def _present(id: int) -> int | None:
    return id if id >= 0 else None


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")
