"""The kernels for ARM under emulation: the bits of those for this machine.

Needs `qemu-aarch64` and `aarch64-linux-gnu-g++` (Debian: qemu-user, g++-aarch64-linux-gnu). On an ARM machine itself
test_native_backend.py runs them.
"""

import ctypes
import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from janeox.engine.backend import Row
from janeox.engine.native_backend import NativeBackend
from janeox.engine.native_library import native_library
from janeox.engine.packing import GROUP, LANES
from runs import ROOT
from test_model import shape
from test_native_backend import model

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
MISSING = [name for name in (COMPILER, EMULATOR) if not shutil.which(name)]
NATIVE = ROOT / "janeox" / "native"

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(native_library() is None, reason="no kernels for this machine to compare with"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """`forward.cpp` and the engine, compiled as the package is (pyproject.toml)."""
    out = tmp_path_factory.mktemp("arm") / "forward"
    sources = [ROOT / "tests" / "forward.cpp", NATIVE / "engine.cpp", NATIVE / "kernels_neon.cpp"]
    flags = ["-std=c++17", "-O3", "-ffp-contract=off", "-pthread", "-static", f"-I{NATIVE}"]
    subprocess.run([COMPILER, *flags, *map(str, sources), "-o", str(out)], check=True)
    return out


def integers(*values: int) -> bytes:
    return np.array(values, np.int32).tobytes()


def array(content: bytes) -> bytes:
    return integers(len(content)) + content


def at(pointer: int | None, size: int) -> bytes:
    """An array where a C structure points to."""
    return array(ctypes.string_at(pointer, size) if pointer else b"")


def matrix(m: ctypes.Structure) -> bytes:
    rows = m.panels * LANES
    parts = [at(m.weight, rows * m.columns * m.bits // 8)]
    parts.append(at(m.scales, rows * m.columns // GROUP.get(m.bits, 1) * 2))
    parts.append(at(m.bias, rows * 4))
    return integers(m.panels, m.columns, m.bits, m.bfloat) + b"".join(parts)


def described(backend: NativeBackend) -> bytes:
    """The model and the size of its cache, as forward.cpp reads them."""
    m = backend._model

    def norm(n: ctypes.Structure) -> bytes:
        return at(n.weight, m.hidden * 4) + at(n.bias, m.hidden * 4)

    flags = (
        "num_layers",
        "hidden",
        "heads",
        "head_dim",
        "rotary_dim",
        "half_embedding",
        "parallel_residual",
        "tanh_gelu",
    )
    parts = [integers(*(getattr(m, name) for name in flags)), np.float32(m.epsilon).tobytes()]
    vectors = (backend.tensors["gpt_neox.embed_in.weight"], *backend._rotary)
    parts += [array(tensor.numpy().tobytes()) for tensor in vectors]
    parts += [norm(m.final_norm), matrix(m.head)]
    for layer in backend._layers:
        parts += [norm(layer.input_layernorm), norm(layer.post_attention_layernorm)]
        parts += [
            matrix(getattr(layer, name)) for name in ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
        ]
    parts.append(integers(backend.num_slots, backend._cache.blocks, backend._cache.bits))
    return b"".join(parts)


def step(rows: list[Row]) -> bytes:
    """All tokens' logits are asked for."""
    ids = [id for row in rows for id in row.ids]
    lists = (ids, [r.slot for r in rows], [r.start for r in rows], [len(r.ids) for r in rows], range(len(ids)))
    return integers(len(rows), len(ids), len(ids)) + b"".join(array(integers(*values)) for values in lists)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(
    "bits,dtype,cache_bits", [(32, None, 32), (16, None, 16), (16, torch.bfloat16, 16), (8, None, 16), (4, None, 8)]
)
def test_the_same_bits_as_on_this_machine(program, number, bits, dtype, cache_bits):
    config = dataclasses.replace(shape(number), hidden_act="gelu" if number % 2 else "gelu_new")
    backend = NativeBackend.from_model(model(config, number).to(dtype), 3, 64, bits=bits, cache_bits=cache_bits)
    ids = [(7 * place + 3) % config.vocab_size for place in range(64)]
    steps = [
        [Row(0, 0, ids[:30]), Row(2, 0, ids[5:10])],
        [Row(0, 30, ids[30:43]), Row(1, 0, ids[:1]), Row(2, 5, ids[10:11])],
        [Row(1, 1, ids[1:2])],
    ]
    content = described(backend) + integers(len(steps)) + b"".join(map(step, steps))
    done = subprocess.run([EMULATOR, str(program)], input=content, capture_output=True, check=True)
    assert done.stderr == b"neon"
    found = torch.from_numpy(np.frombuffer(done.stdout, np.float32).copy()).view(-1, backend._stride)
    expected = torch.cat([backend.forward(rows, every=True) for rows in steps])
    assert torch.equal(found[:, : config.vocab_size], expected)
