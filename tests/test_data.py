"""Shards and batches: the file format byte by byte, and every window exactly once an epoch."""

import itertools
import struct
from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from janeox import JaneoxError
from janeox.data.batches import PATTERN, Batches, permute
from janeox.data.shards import ShardFile, Shards, ShardWriter, TokenFile, write_manifest


def make_shards(folder, documents, vocab_size=1000):
    """Shards of {source: [ids, …]}; also the held-out split "valid/…" where a name has that form."""
    files = []
    for name, rows in documents.items():
        split, _, source = name.rpartition("/")
        split = split or "train"
        with ShardWriter(folder / split / f"{source}-00000", vocab_size) as writer:
            for ids in rows:
                writer.append(ids)
        counts = len(rows), sum(map(len, rows)), 10 * len(rows), 30 * len(rows)
        files.append(ShardFile(split, source, f"{split}/{source}-00000", *counts))
    write_manifest(folder, vocab_size, 3, "fingerprint", files)
    return Shards(folder)


def read_megatron(stem):
    """The format as its own documentation gives it, read with struct alone."""
    index = stem.with_name(stem.name + ".idx").read_bytes()
    magic, version, code, sequences, documents = struct.unpack_from("<9sQBQQ", index)
    assert magic == b"MMIDIDX\x00\x00" and version == 1 and documents == sequences + 1
    at = 9 + 8 + 1 + 8 + 8
    sizes = struct.unpack_from(f"<{sequences}i", index, at)
    pointers = struct.unpack_from(f"<{sequences}q", index, at + 4 * sequences)
    starts = struct.unpack_from(f"<{documents}q", index, at + 12 * sequences)
    assert starts == tuple(range(documents)) and len(index) == at + 12 * sequences + 8 * documents
    data = stem.with_name(stem.name + ".bin").read_bytes()
    kind, width = {8: ("H", 2), 4: ("i", 4)}[code]
    return [list(struct.unpack_from(f"<{n}{kind}", data, p)) for n, p in zip(sizes, pointers, strict=True)], width


@given(st.lists(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=20), max_size=10), st.booleans())
@settings(max_examples=50, deadline=None)
def test_shards_are_megatron_files(tmp_path_factory, documents, large):
    stem = tmp_path_factory.mktemp("s") / "a" / "web.v1-00000"
    with patch("janeox.data.shards.BLOCK", 3), ShardWriter(stem, 1 << 17 if large else 1 << 16) as writer:
        for ids in documents:
            writer.append(ids)
    read, width = read_megatron(stem)
    assert read == documents and width == (4 if large else 2)
    file = TokenFile(stem)
    assert file.tokens.tolist() == list(itertools.chain(*documents)) and file.lengths.tolist() == list(
        map(len, documents)
    )


def test_damaged_shards_are_named(tmp_path):
    make_shards(tmp_path, {"web": [[4, 5, 3], [6, 3]]})
    stem = tmp_path / "train" / "web-00000"
    for suffix in (".idx", ".bin"):
        file = stem.with_name(stem.name + suffix)
        whole = file.read_bytes()
        for cut in (0, 3, len(whole) - 1):
            file.write_bytes(whole[:cut])
            with pytest.raises(JaneoxError, match=r"web-00000\.(idx|bin): .*(tokenize again|not a Megatron index)"):
                TokenFile(stem)
        file.write_bytes(whole)
    stem.with_name(stem.name + ".bin").unlink()
    with pytest.raises(JaneoxError, match=r"web-00000\.bin: missing"):
        TokenFile(stem)
    (tmp_path / "shards.json").write_text("{")
    with pytest.raises(JaneoxError, match=r"shards\.json: damaged"):
        Shards(tmp_path)
    with pytest.raises(JaneoxError, match=r"no shards\.json there"):
        Shards(tmp_path / "nowhere")


@given(st.integers(1, 2000), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_permutation_is_one(size, key):
    assert sorted(permute(i, size, (key,)) for i in range(size)) == list(range(size))


def test_permutation_mixes():
    """Neighbours do not stay neighbours, and different keys give different orders."""
    orders = [[permute(i, 1000, (key,)) for i in range(1000)] for key in range(5)]
    for order in orders:
        assert sum(abs(a - b) == 1 for a, b in itertools.pairwise(order)) < 15
    assert len({tuple(order) for order in orders}) == 5


def counting_shards(folder, **sizes):
    """Sources whose token k of source s is s·1000 + k: every window tells where it comes from."""
    documents = {}
    for number, (name, size) in enumerate(sizes.items()):
        documents[name] = [list(range(number * 1000, number * 1000 + size))]
    return make_shards(folder, documents, 1 << 16)


def test_an_epoch_visits_every_window_once(tmp_path):
    batches = Batches(counting_shards(tmp_path, a=161, b=81), {}, sequence_length=8, batch_rows=5, seed=1)
    assert batches.windows_per_epoch == 20 + 10
    epochs = []
    for epoch in range(3):
        rows = np.concatenate([batches.batch(step) for step in range(6 * epoch, 6 * epoch + 6)])
        assert (np.diff(rows, axis=1) == 1).all()  # each row is nine tokens that follow each other
        starts = rows[:, 0].tolist()
        assert sorted(starts) == [8 * i for i in range(20)] + [1000 + 8 * i for i in range(10)]
        epochs.append(starts)
    assert epochs[0] != epochs[1] != epochs[2]


def test_ranks_share_a_batch(tmp_path):
    batches = Batches(counting_shards(tmp_path, a=161, b=81), {"a": 0.5, "b": 0.5}, 8, batch_rows=8, seed=1)
    for step in range(5):
        whole = batches.batch(step)
        for world_size in (2, 4):
            parts = [batches.batch(step, rank, world_size) for rank in range(world_size)]
            assert sorted(map(tuple, np.concatenate(parts))) == sorted(map(tuple, whole))
        again = Batches(Shards(tmp_path), {"a": 0.5, "b": 0.5}, 8, 8, seed=1).batch(step)
        assert (again == whole).all()


def test_weights_are_met_and_each_source_keeps_its_epochs(tmp_path):
    shards = counting_shards(tmp_path, a=161, b=81, c=81)
    batches = Batches(shards, {"a": 3, "b": 1, "c": 0}, 8, batch_rows=4, seed=1)
    starts = np.concatenate([batches.batch(step)[:, 0] for step in range(PATTERN // 4)])
    counts = Counter(int(start) // 1000 for start in starts)
    assert counts == {0: PATTERN * 3 // 4, 1: PATTERN // 4}
    for source, windows in ((0, 20), (1, 10)):
        own = [start for start in starts if start // 1000 == source]
        assert len(set(own[:windows])) == windows == len(set(own[windows : 2 * windows]))


def test_bad_mixtures_are_named(tmp_path):
    shards = counting_shards(tmp_path, a=161, b=5)
    with pytest.raises(JaneoxError, match="names 'x'; the shards have a, b"):
        Batches(shards, {"x": 1.0}, 8, 4, 1)
    with pytest.raises(JaneoxError, match="source 'b' is shorter than one row"):
        Batches(shards, {"a": 1.0, "b": 1.0}, 8, 4, 1)
    with pytest.raises(JaneoxError, match="at least one weight"):
        Batches(shards, {"a": 0.0}, 8, 4, 1)
    with pytest.raises(JaneoxError, match="training split is shorter"):
        Batches(shards, {}, 500, 4, 1)
