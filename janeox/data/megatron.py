"""gpt-neox's and Megatron's `.bin`/`.idx` pairs → shards. The other way needs nothing: shards are such pairs.

What others wrote may hold documents of several sequences (`.idx` says which begin one), int32 ids though uint16 would
do, and no end of text; and nothing says which tokenizer made it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from janeox.atomic import new_folder
from janeox.data.shards import ShardFile, Shards, ShardWriter, TokenFile, write_manifest
from janeox.data.tokenize import load_tokenizer, summary
from janeox.errors import JaneoxError
from janeox.progress import progress
from janeox.settings.tokenizer import ImportShards
from janeox.tokenizer import Tokenizer


def documents(file: TokenFile) -> Iterator[np.ndarray]:
    """The ids of each document, its sequences joined."""
    ends = np.concatenate(([0], np.cumsum(file.lengths, dtype=np.int64)))
    for first, last in zip(file.starts[:-1], file.starts[1:], strict=True):
        yield file.tokens[ends[first] : ends[last]]


def import_shards(files: list[Path], tokenizer: Tokenizer, out: Path, valid: bool = False) -> Shards:
    """Writes each pair as one source, named like its file. Every document then ends with `</s>`; where it did not, one
    is added. Characters and bytes of the text, which bits per byte divide by, are those of the decoded ids.

    Args:
        files: paths of the pairs, with or without `.bin` or `.idx`.
        valid: they are the validation split, not the training split.

    Raises:
        JaneoxError: a pair is missing, damaged or of another format, two have one name, an id lies outside the
            tokenizer's vocabulary (another tokenizer made it), or `out` exists.
    """
    stems = [path.with_suffix("") if path.suffix in (".bin", ".idx") else path for path in files]
    names = [stem.name for stem in stems]
    if not stems or len(set(names)) < len(names):
        raise JaneoxError(f"import-shards: give one or more files of different names, not {', '.join(names) or 'none'}")
    if out.exists():
        raise JaneoxError(f"{out}: exists; name another run with --out, or remove it")
    eos = tokenizer.eos_token_id
    if eos is None:
        raise JaneoxError(f"{tokenizer.where}: has no </s>, with which every document must end")
    split = "valid" if valid else "train"
    rows = []
    with new_folder(out) as folder:
        for stem in stems:
            file = TokenFile(stem)
            row = ShardFile(split, stem.name, f"{split}/{stem.name}", 0, 0, 0, 0)
            with (
                ShardWriter(folder / row.name, tokenizer.vocab_size) as writer,
                progress(f"import {stem.name}", len(file.starts) - 1, "documents") as bar,
            ):
                for ids in documents(file):
                    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.vocab_size:
                        raise JaneoxError(
                            f"{stem}.bin: document {row.num_documents} holds an id outside the {tokenizer.vocab_size} "
                            f"of {tokenizer.where}; it was made by another tokenizer"
                        )
                    whole = ids if len(ids) and ids[-1] == eos else np.append(ids, np.asarray(eos, ids.dtype))
                    text = tokenizer.decode(whole.tolist())
                    writer.append(whole)
                    row.num_documents += 1
                    row.num_tokens += len(whole)
                    row.num_chars += len(text)
                    row.num_bytes += len(text.encode())
                    bar.advance(1)
            rows.append(row)
        write_manifest(folder, tokenizer.vocab_size, eos, tokenizer.fingerprint, rows)
    return Shards(out)


def run_import_shards(settings: ImportShards) -> None:
    """The verb `import-shards`."""
    tokenizer = load_tokenizer(settings.tokenizer_folder, settings.out)
    shards = import_shards(list(settings.files), tokenizer, settings.out / "shards", settings.valid)
    Console().print(summary(shards))
    print(f"shards: {shards.folder}\nnext:   janeox pretrain RECIPE.toml")
