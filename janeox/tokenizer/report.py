"""What a tokenizer makes of texts, in figures, next to what others make of the same texts."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from janeox.tokenizer.model_file import PieceType
from janeox.tokenizer.tokenizer import Tokenizer

SHOWN = 10  # longest and rarest pieces
SAMPLE = 1_000_000  # characters of each group of texts that are measured, from its beginning


def measured(tokenizer: Tokenizer, groups: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """Figures by group of texts.

    `coverage` is the share of the characters that need neither bytes nor the unknown piece, `byte_rate` the share of
    the tokens that are bytes. Both count the text as the model's normalisation leaves it.
    """
    kinds = [piece.type for piece in tokenizer.file.pieces]
    surfaces = tokenizer.surfaces
    rows = {}
    for name, texts in groups.items():
        counts = Counter(id for ids in tokenizer.batch(texts) for id in ids)
        tokens, chars = sum(counts.values()), sum(map(len, texts))
        in_bytes = sum(count for id, count in counts.items() if kinds[id] is PieceType.BYTE)
        # Each character spelled in bytes has one byte that is no continuation byte.
        spelled = sum(n for id, n in counts.items() if isinstance(b := surfaces[id], int) and b & 0xC0 != 0x80)
        spelled += counts[tokenizer.unk_token_id]
        rows[name] = {
            "characters": chars,
            "bytes": sum(len(text.encode("utf-8", "replace")) for text in texts),
            "tokens": tokens,
            "coverage": 1 - spelled / max(1, chars),
            "byte_rate": in_bytes / max(1, tokens),
        }
    return rows


def vocabulary(tokenizer: Tokenizer) -> dict[str, Any]:
    """The longest and the rarest (lowest-scored) ordinary pieces, and their number by length in characters."""
    normal = [piece for piece in tokenizer.file.pieces if piece.type is PieceType.NORMAL]
    lengths = Counter(len(piece.text) for piece in normal)
    return {
        "longest": [piece.text for piece in sorted(normal, key=lambda p: (-len(p.text), p.text))[:SHOWN]],
        "rarest": [piece.text for piece in sorted(normal, key=lambda p: (p.score, p.text))[:SHOWN]],
        "lengths": {str(length): lengths[length] for length in sorted(lengths)},
    }


def sampled(texts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Group → its texts, from (group, text), up to about `SAMPLE` characters of each group."""
    groups: dict[str, list[str]] = {}
    sizes: Counter[str] = Counter()
    for group, text in texts:
        if sizes[group] < SAMPLE:
            groups.setdefault(group, []).append(text[: SAMPLE - sizes[group]])
            sizes[group] += len(text)
    return groups


def figures_table(rows: dict[str, dict[str, dict[str, float]]]) -> Table:
    """Tokenizer → group → figures, for the terminal."""
    table = Table(title="Tokenizers")
    for column in ("tokenizer", "text", "tokens per character", "tokens per byte", "coverage", "byte tokens"):
        table.add_column(column, justify="left" if column in ("tokenizer", "text") else "right")
    for name, groups in rows.items():
        for group, row in groups.items():
            per_char, per_byte = (row["tokens"] / max(1, row[unit]) for unit in ("characters", "bytes"))
            shares = (f"{row['coverage']:.4%}", f"{row['byte_rate']:.2%}")
            table.add_row(name, group, f"{per_char:.4f}", f"{per_byte:.4f}", *shares)
    return table
