"""The native kernels against transformers, torch with the same rounding, and themselves in other batches."""

import copy
import dataclasses
import os
import random
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

import janeox.engine.native_library
import janeox.engine.packed_file
from janeox import JaneoxError
from janeox.cli import main
from janeox.config import GPTNeoXConfig
from janeox.engine import pages
from janeox.engine.backend import Row
from janeox.engine.native_backend import PORTION, NativeBackend, NotCovered
from janeox.engine.native_library import native_library
from janeox.engine.packed_file import FILE, read_packed, write_packed
from janeox.engine.packing import GROUP, absmax_scales, best_scales, pack, packed_tensors, quantised
from janeox.model import GPTNeoX
from test_model import shape, theirs
from test_native import compiler

pytestmark = pytest.mark.skipif(not compiler() and native_library() is None, reason="no compiler here")
TINY = GPTNeoXConfig(97, 32, 2, 2, 48, max_position_embeddings=64)


def supported(kernels: str) -> bool:
    try:
        NativeBackend.from_model(model(TINY), 1, 16, kernels=kernels)
    except NotCovered:
        return False
    return True


def model(config: GPTNeoXConfig, seed: int = 0) -> GPTNeoX:
    """Ours, with weights large enough for errors to show."""
    made = GPTNeoX(config).eval().requires_grad_(False)
    weights = theirs(config, seed).state_dict()
    made.load_state_dict({name.replace("lm_head", "embed_out"): tensor for name, tensor in weights.items()})
    return made


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


KERNELS = [name for name in ("avx512bf16", "avx512", "avx2", "neon") if supported(name)]


def test_there_are_kernels_for_this_processor():
    assert KERNELS


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("number", range(8))
def test_logits_equal_transformers(number, kernels):
    config = dataclasses.replace(
        shape(number), hidden_act=["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"][number % 4]
    )
    reference = theirs(config, number)
    ids = torch.randint(0, config.vocab_size, (3, 41), generator=torch.Generator().manual_seed(number))
    with torch.no_grad():
        expected = reference(ids).logits
    rows = [Row(slot, 0, row.tolist()) for slot, row in enumerate(ids)]
    exact = NativeBackend.from_model(model(config, number), 3, 41, bits=32, kernels=kernels)
    assert (exact.forward(rows, every=True).view_as(expected) - expected).abs().max() < 1e-5
    assert (exact.forward(rows) - expected[:, -1]).abs().max() < 1e-5
    half = NativeBackend.from_model(model(config, number), 3, 41, bits=16, kernels=kernels)
    assert error(half.forward(rows, every=True).view_as(expected), expected) < 1e-3


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("number", range(4))
def test_bfloat16_products_are_those_of_the_rounded_numbers(number, kernels, monkeypatch):
    config = shape(number)
    rounded = model(config, number).bfloat16()
    backend = NativeBackend.from_model(rounded, 1, 41, cache_bits=32, kernels=kernels)
    assert backend.tensors["embed_out.weight"].dtype == torch.bfloat16
    rounded = rounded.float()
    for module in rounded.modules():
        if isinstance(module, torch.nn.Linear):
            linear = lambda self, x: F.linear(x.bfloat16().float(), self.weight, self.bias)  # noqa: E731
            monkeypatch.setattr(module, "forward", linear.__get__(module))
    ids = torch.randint(0, config.vocab_size, (1, 41))
    with torch.no_grad():
        expected = rounded(ids)[0]
    found = backend.forward([Row(0, 0, ids[0].tolist())], every=True)
    assert error(found, expected) < 3e-3  # an activation beside the middle of two numbers may be rounded to the other


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("number", range(4))
def test_integer_products_are_those_of_the_rounded_numbers(number, bits, monkeypatch):
    config = shape(number)
    rounded = model(config, number)
    backend = NativeBackend.from_model(rounded, 1, 41, bits=bits, cache_bits=32)

    def by_groups(x, bits):
        group, size = GROUP[bits], x.shape[-1]
        x = F.pad(x, (0, -size % group))
        return x.view(*x.shape[:-1], -1, group), lambda groups: groups.reshape(x.shape)[..., :size]

    def linear(self, x):  # activations always have 8 bits, in the groups of the weights
        bits = self.bits
        groups, back = by_groups(x, bits)
        scales = groups.abs().amax(-1, keepdim=True) / 127
        return F.linear(back((groups / scales.clamp(min=1e-30)).round() * scales), self.weight, self.bias)

    for module in rounded.modules():
        if isinstance(module, torch.nn.Linear):
            module.bits = 8 if module is rounded.embed_out else bits
            groups, back = by_groups(module.weight.data, module.bits)
            scales = (absmax_scales if module.bits == 8 else best_scales)(groups)
            module.weight = torch.nn.Parameter(back(quantised(groups, scales, module.bits) * scales))
            monkeypatch.setattr(module, "forward", linear.__get__(module))
    rounded.gpt_neox.embed_in.weight = torch.nn.Parameter(model(config, number).gpt_neox.embed_in.weight.half().float())
    ids = torch.randint(0, config.vocab_size, (1, 41))
    with torch.no_grad():
        expected = rounded(ids)[0]
    found = backend.forward([Row(0, 0, ids[0].tolist())], every=True)
    # A sum that falls beside the middle between two levels may go to the other one.
    assert error(found, expected) < 3e-3


@pytest.mark.parametrize("bits,dtype", [(32, None), (16, None), (16, torch.bfloat16), (8, None), (4, None)])
@pytest.mark.parametrize("kernels", KERNELS)
def test_every_kind_of_kernels_gives_the_same_bits(bits, dtype, kernels):
    weights = model(shape(3)).to(dtype)
    best, other = (NativeBackend.from_model(weights, 2, 64, bits=bits, kernels=name) for name in ("", kernels))
    assert other.kernels == kernels
    rows = [Row(1, 0, list(range(30))), Row(0, 0, [7])]
    assert torch.equal(best.forward(rows, every=True), other.forward(rows, every=True))


@pytest.mark.parametrize("bits,cache_bits,threads", [(32, 32, 1), (16, 16, 3), (8, 16, 2), (8, 8, 1), (4, 8, 2)])
def test_a_text_gets_the_same_bits_alone_and_in_any_company(bits, cache_bits, threads):
    """Texts advance by ragged portions, are rewound, copied and taken up again, beside any others."""
    config, pick = dataclasses.replace(shape(2), max_position_embeddings=400), random.Random(bits)
    backend = NativeBackend.from_model(model(config), 6, 400, bits=bits, cache_bits=cache_bits, threads=threads)
    alone = NativeBackend.from_model(model(config), 1, 400, bits=bits, cache_bits=cache_bits, threads=1)
    texts = [[pick.randrange(config.vocab_size) for _ in range(400)] for _ in range(6)]
    expected = [alone.forward([Row(0, 0, text)], every=True) for text in texts]
    lengths = [0] * 6
    for _ in range(40):
        rows = []
        for slot in pick.sample(range(6), pick.randint(1, 6)):
            start = pick.choice([lengths[slot], pick.randint(0, lengths[slot])])
            count = min(pick.choice([1, 1, 1, 2, 5, 13, 40, 150]), 400 - start)
            if count:
                rows.append(Row(slot, start, texts[slot][start : start + count]))
                lengths[slot] = start + count
        if not rows:
            continue
        every = pick.random() < 0.5
        found = backend.forward(rows, every)
        wanted = [
            expected[r.slot][(r.start if every else r.start + len(r.ids) - 1) : r.start + len(r.ids)] for r in rows
        ]
        assert torch.equal(found, torch.cat(wanted))
        source, target = pick.sample(range(6), 2)
        backend.copy(source, target, lengths[source])
        texts[target], expected[target], lengths[target] = texts[source], expected[source], lengths[source]
    assert torch.equal(backend.forward([Row(0, 0, texts[0])])[0], expected[0][-1])  # in several portions


def test_a_cache_of_8_bits_changes_little():
    config = dataclasses.replace(shape(3), max_position_embeddings=128)
    row = Row(0, 0, [number % config.vocab_size for number in range(128)])
    exact, small = (NativeBackend.from_model(model(config), 1, 128, bits=32, cache_bits=bits) for bits in (32, 8))
    assert 0 < error(small.forward([row], every=True), exact.forward([row], every=True)) < 0.01
    assert small._keys_values[0].nbytes * 4 == exact._keys_values[0].nbytes


def test_refresh_takes_new_weights_in_place():
    old, new = model(TINY), model(TINY, seed=1)
    backend = NativeBackend.from_model(old, 1, 16, bits=8)
    place = backend.tensors["embed_out.weight"].data_ptr()
    backend.refresh(new)
    row = [Row(0, 0, [5, 6, 7])]
    assert torch.equal(backend.forward(row), NativeBackend.from_model(new, 1, 16, bits=8).forward(row))
    assert backend.tensors["embed_out.weight"].data_ptr() == place


def test_refresh_rounds_weights_to_the_bfloat16_that_was_there():
    new = model(TINY, seed=1)
    backend = NativeBackend.from_model(model(TINY).bfloat16(), 1, 16)
    backend.refresh(new)
    fresh = NativeBackend.from_model(copy.deepcopy(new).bfloat16(), 1, 16)
    halves = [name for name, tensor in fresh.tensors.items() if tensor.dtype == torch.bfloat16]
    assert len(halves) == 9  # the head, and four matrices a layer
    assert all(torch.equal(backend.tensors[name], fresh.tensors[name]) for name in halves)
    row = [Row(0, 0, [5, 6, 7])]
    assert error(backend.forward(row), fresh.forward(row)) < 0.01  # norms and biases are not rounded


def test_a_cache_takes_memory_as_it_is_used():
    config = dataclasses.replace(TINY, max_position_embeddings=4096)

    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * 4096

    before = resident()
    backend = NativeBackend.from_model(model(config), 1000, 4096, bits=16)  # 1 GB
    backend.forward([Row(slot, 0, [1, 2, 3]) for slot in range(0, 1000, 50)])
    assert sum(tensor.nbytes for tensor in backend._keys_values) > 1e9 and resident() - before < 200e6


def test_best_scales_are_better_than_the_plain_ones():
    groups = torch.randn(2, 16, 4, 32, generator=torch.Generator().manual_seed(0))
    plain = (groups.abs().amax(-1, keepdim=True) / 7).half()
    best = best_scales(groups)
    assert all(
        (quantised(groups, scales, 4) * scales - groups).square().mean()
        > (quantised(groups, best, 4) * best - groups).square().mean()
        for scales in (plain, plain * 7 / 8)
    )


def test_what_cannot_be_is_refused():
    backend = NativeBackend.from_model(model(TINY), 2, 16)
    for rows in ([Row(2, 0, [1])], [Row(0, 10, [1] * 7)], [Row(0, -1, [1])], [Row(0, 0, [])], [Row(0, 0, [97])],
                 [Row(0, 0, [-1])], [Row(0, 0, [1]), Row(0, 1, [1])]):  # fmt: skip
        with pytest.raises(ValueError):
            backend.forward(rows)
    with pytest.raises(JaneoxError, match="use 32, 16, 8 or 4"):
        NativeBackend.from_model(model(TINY), 1, 16, bits=5)
    with pytest.raises(JaneoxError, match="capacity 65"):
        NativeBackend.from_model(model(TINY), 1, 65)
    with pytest.raises(NotCovered, match="no kernels 'sse'"):
        NativeBackend.from_model(model(TINY), 1, 16, kernels="sse")
    with pytest.raises(NotCovered, match="head size 40"):
        NativeBackend.from_model(model(dataclasses.replace(TINY, hidden_size=80)), 1, 16)
    broken = model(TINY)
    broken.gpt_neox.layers[1].mlp.dense_4h_to_h.weight[3, 4] = torch.nan
    for bits in (32, 16, 8, 4):
        with pytest.raises(
            JaneoxError, match=r"layers\.1\.mlp\.dense_4h_to_h\.weight: holds weights that are not finite"
        ):
            NativeBackend.from_model(broken, 1, 16, bits=bits)
    with pytest.raises(JaneoxError, match=r"'embed_out\.weight' is of shape"):
        tensors = dict(NativeBackend.from_model(model(TINY), 1, 16, bits=8).tensors)
        tensors |= dict(pack("embed_out.weight", torch.zeros(50, 32), 8))
        NativeBackend(TINY, tensors, 1, 16)


def test_a_long_text_of_which_only_the_last_logits_are_asked():
    """Its first portion gives no logits at all."""
    config = dataclasses.replace(TINY, max_position_embeddings=PORTION + 40)
    backend = NativeBackend.from_model(model(config), 1, config.max_position_embeddings, bits=32)
    ids = [number % 90 for number in range(config.max_position_embeddings)]
    assert torch.equal(backend.forward([Row(0, 0, ids)]), backend.forward([Row(0, 0, ids)], every=True)[-1:])


def test_quantize_writes_a_folder_that_opens_at_once(tokenizer, tmp_path, works, capsys):
    config = dataclasses.replace(TINY, vocab_size=tokenizer.vocab_size)
    folder = tmp_path / "model"
    model(config).save_pretrained(folder)
    tokenizer.save(folder)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(works[:3]), encoding="utf-8")
    assert main(["quantize", str(folder), "--bits", "8", "--input", str(text), "--tokens", "500"]) == 0
    printed = capsys.readouterr().out
    assert "32 bits" in printed and "8 bits" in printed and "model-8bit" in printed
    small, full = janeox.load(tmp_path / "model-8bit"), janeox.load(folder)
    assert small.bits == 8 and full.bits == 32
    assert small.perplexity(works[:3]) == pytest.approx(full.perplexity(works[:3]), rel=0.01)
    assert small.perplexity(works[:3]) == pytest.approx(janeox.load(folder, bits=8).perplexity(works[:3]), rel=1e-6)
    sampling = {"max_new_tokens": 8, "temperature": 0}
    assert small.generate("猫は", **sampling) == janeox.load(folder, bits=8).generate("猫は", **sampling)
    assert full.generate("猫は", **sampling) == janeox.LM(full.model, tokenizer).generate("猫は", **sampling)  # torch's
    with safe_open(tmp_path / "model-8bit" / FILE, framework="pt") as file:  # an ordinary safetensors file
        assert file.get_slice("embed_out.weight").get_shape() == [-(-config.vocab_size // 16), 16, 16, 4]
    with pytest.raises(JaneoxError, match="holds weights of 8 bits"):
        janeox.load(tmp_path / "model-8bit", bits=4)
    assert main(["quantize", str(folder), "--out", str(folder)]) == 1
    assert "would replace the model" in capsys.readouterr().err


def test_a_damaged_packed_file_is_named(tmp_path):
    write_packed(dict(packed_tensors(model(TINY), 4)), tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", whole.replace(b"janeox-panels-1", b"janeox-panels-0")):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(JaneoxError, match=r"packed\.safetensors: .*make it again"):
            read_packed(tmp_path)


def test_a_packed_file_is_read_where_there_is_room_and_mapped_elsewhere(tmp_path, monkeypatch):
    write_packed(dict(packed_tensors(model(TINY), 8)), tmp_path)

    def opened(use_mmap, room):
        monkeypatch.setattr(janeox.engine.packed_file, "room_for", lambda num_bytes: room)
        tensors = read_packed(tmp_path, use_mmap)
        return tensors, str(tmp_path / FILE) in Path("/proc/self/maps").read_text()

    read, mapped = opened(use_mmap=False, room=True)
    assert not mapped
    for use_mmap, room in ((True, True), (False, False)):
        tensors, mapped = opened(use_mmap, room)
        assert mapped
        assert all(torch.equal(tensors[name], read[name]) for name in {*tensors, *read})
        del tensors
    assert all(tensor.data_ptr() % 64 == 0 for name, tensor in read.items() if name.endswith("weight"))


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(bytes(range(200)))
    assert pages.read_file(tmp_path / "file").tolist() == list(range(200))
    monkeypatch.setattr(os, "fstat", lambda file: SimpleNamespace(st_size=201))
    with pytest.raises(OSError, match="became shorter"):
        pages.read_file(tmp_path / "file")


def test_without_a_library_torch_generates_and_says_so_once(tokenizer, tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(TINY, vocab_size=tokenizer.vocab_size)
    model(config).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    expected = janeox.load(tmp_path).generate("猫は", max_new_tokens=4, temperature=0)
    monkeypatch.setattr(janeox.engine.native_library, "native_library", lambda: None)
    for _ in range(2):
        assert janeox.load(tmp_path).generate("猫は", max_new_tokens=4, temperature=0) == expected
    assert capsys.readouterr().err.count("the native library was not built") == 1
    with pytest.raises(JaneoxError, match="bits = 8: the native library was not built"):
        janeox.load(tmp_path, bits=8)


def test_bench_prints_shares_of_measured_limits(tmp_path, capsys):
    model(TINY).save_pretrained(tmp_path)
    arguments = ["bench", str(tmp_path), "--prompt", "20", "--steps", "2", "--bits", "32", "8"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert re.search(r"read bandwidth [\d.]+ GB/s; \d+ GFLOP/s in float32, \d+ in bfloat16, \d+ GOP/s in int8", printed)
    assert len(re.findall(r"│ janeox \(\w+\) ", printed)) == 3 and "transformers" in printed
    assert main(["bench", str(tmp_path), "--prompt", "65"]) == 1
    assert "65 tokens are more than the model's context, 64" in capsys.readouterr().err
