"""One model folder in the formats of llama.cpp, OpenVINO and CTranslate2, for benchmarks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from janeox.config import GPTNeoXConfig
from janeox.engine.packed_file import FILE, write_packed
from janeox.engine.packing import packed_tensors
from janeox.model import GPTNeoX
from janeox.tokenizer import Tokenizer
from janeox.tokenizer.gguf import gguf_keys
from janeox.weights import read_json, write_weights
from tests.transformers4 import run_transformers4

GGUF_NAMES = {
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_random_model(config: GPTNeoXConfig, folder: Path, seed: int = 0) -> None:
    """A folder of float16 weights: normal with the config's range, biases and norms' differences from 1 too."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_hf("float16"), indent=2))
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in GPTNeoX(config).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        mean = float("norm" in name and name.endswith("weight"))
        tensors[name] = torch.empty(shape).normal_(mean, config.initializer_range, generator=generator).half()
    write_weights(tensors, folder)


def write_janeox(folder: Path, out: Path, bits: int) -> None:
    """The packed weights of `janeox quantize`, here in 16 bits too."""
    out.mkdir(parents=True)
    (out / "config.json").write_bytes((folder / "config.json").read_bytes())
    write_packed(dict(packed_tensors(GPTNeoX.from_pretrained(folder), bits)), out)
    assert (out / FILE).is_file()


def write_gguf(folder: Path, out: Path, kind: str, tokenizer: Tokenizer | None = None) -> None:
    """`kind`: F32, F16, BF16, Q8_0 or Q4_0, of all matrices; the embedding is F16.

    Without a tokenizer its vocabulary has no text.
    """
    import gguf
    from gguf import GGMLQuantizationType as Type

    config = GPTNeoXConfig.from_hf(read_json(folder / "config.json"))
    writer = gguf.GGUFWriter(str(out), "gptneox")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_rope_dimension_count(config.rotary_dim)
    writer.add_head_count(config.num_attention_heads)
    writer.add_parallel_residual(config.use_parallel_residual)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if tokenizer:
        add_vocabulary(writer, tokenizer)
    else:
        writer.add_tokenizer_model("no_vocab")

    def add(name: str, tensor: Tensor, quantised: bool) -> None:
        data = tensor.float().numpy()
        type_ = Type[kind] if quantised else Type.F16 if data.ndim == 2 else Type.F32
        writer.add_tensor(name, gguf.quants.quantize(data, type_), raw_dtype=type_)

    model = GPTNeoX.from_pretrained(folder)
    for name, tensor in model.state_dict().items():
        *path, part = name.removeprefix("gpt_neox.").split(".")
        if path[0] == "layers":
            block = f"blk.{path[1]}.{GGUF_NAMES['.'.join(path[2:])]}.{part}"
            if path[-1] == "query_key_value":  # all queries, then all keys, then all values
                H, D = config.num_attention_heads, config.head_dim
                tensor = tensor.view(H, 3, D, -1).transpose(0, 1).reshape(tensor.shape)
        else:
            top = {"embed_in": "token_embd", "final_layer_norm": "output_norm", "embed_out": "output"}
            block = f"{top[path[0]]}.{part}"
        add(block, tensor, tensor.ndim == 2 and path[0] != "embed_in")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: Any, tokenizer: Tokenizer) -> None:
    """A tokenizer's keys, into a `gguf.GGUFWriter`."""
    add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string, list: writer.add_array}
    for key, value in gguf_keys(tokenizer).items():
        add.get(type(value), writer.add_array)(key, value)  # bytes too are an array


def write_ctranslate2(folder: Path, out: Path) -> None:
    """By its own converter, which needs transformers 4. The pieces of its vocabulary are the ids."""
    run_transformers4(
        """
import sys
import ctranslate2.converters.transformers as t, transformers
loader = type(t._MODEL_LOADERS["GPTNeoXConfig"])
loader.get_vocabulary = lambda self, model, tokenizer: [str(id) for id in range(model.config.vocab_size)]
loader.set_config = lambda self, config, model, tokenizer: setattr(config, "unk_token", "0")
loader.set_vocabulary = lambda self, spec, tokens: spec.register_vocabulary(tokens)
transformers.AutoTokenizer.from_pretrained = lambda *arguments, **options: None
converter = t.TransformersConverter(sys.argv[1], load_as_float16=True, low_cpu_mem_usage=True)
converter.convert(sys.argv[2], quantization="int8", force=True)
print("null")
""",
        folder,
        out,
    )


def write_openvino(folder: Path, out: Path) -> None:
    """A graph with a cache inside, as optimum exports it: int8 weights with a scale for each row, SDPA, rotation."""
    import openvino as ov
    from openvino import opset13 as op
    from openvino.op import util

    config = GPTNeoXConfig.from_hf(read_json(folder / "config.json"))
    weights = GPTNeoX.from_pretrained(folder).state_dict()
    H, D, R = config.num_attention_heads, config.head_dim, config.rotary_dim
    if R != D:
        raise SystemExit("only models that rotate whole heads")
    ids, positions = (op.parameter([-1, -1], np.int64, name=name) for name in ("ids", "positions"))
    beam = op.parameter([-1], np.int32, name="beam_idx")
    mask = op.parameter([-1, 1, -1, -1], np.float32, name="mask")
    sinks = []

    def numbers(values: object) -> ov.Node:
        return op.constant(np.array(values, np.int64))

    def linear(x: ov.Node, name: str) -> ov.Node:
        weight = weights[f"{name}.weight"].float()
        scale = (weight.abs().amax(1, keepdim=True) / 127).half()
        levels = (weight / scale.float()).round().clamp(-127, 127).to(torch.int8)
        kept = op.multiply(op.convert(op.constant(levels.numpy()), "f16"), op.constant(scale.numpy()))
        y = op.matmul(x, op.convert(kept, "f32"), False, True)
        bias = weights.get(f"{name}.bias")
        return y if bias is None else op.add(y, op.constant(bias.float().numpy()))

    def norm(x: ov.Node, name: str) -> ov.Node:
        y = op.mvn(x, numbers([-1]), True, config.layer_norm_eps, "inside_sqrt")
        scale, shift = (op.constant(weights[f"{name}.{part}"].float().numpy()) for part in ("weight", "bias"))
        return op.add(op.multiply(y, scale), shift)

    inv_freq = 1.0 / (config.rotary_emb_base ** (torch.arange(0, R, 2).float() / R)) / config.rope_scaling_factor
    angles = (torch.arange(config.max_position_embeddings).float()[:, None] * inv_freq).repeat(1, 2)
    cos, sin = (
        op.unsqueeze(op.gather(op.constant(table.numpy()), positions, numbers(0)), numbers(1))
        for table in (angles.cos(), angles.sin())
    )

    def rotate(x: ov.Node) -> ov.Node:
        first, second = op.split(x, numbers(-1), 2).outputs()
        turned = op.concat([op.multiply(second, op.constant(np.float32(-1))), first], -1)
        return op.add(op.multiply(x, cos), op.multiply(turned, sin))

    batch = op.gather(op.shape_of(ids), numbers([0]), numbers(0))
    nothing = op.broadcast(op.constant(np.float32(0)), op.concat([batch, numbers([H, 0, D])], 0))

    def remembered(new: ov.Node, name: str) -> ov.Node:
        info = util.VariableInfo()
        info.data_shape, info.data_type, info.variable_id = ov.PartialShape([-1, H, -1, D]), ov.Type.f32, name
        variable = util.Variable(info)
        past = op.gather(op.read_value(nothing, variable), beam, numbers(0))
        everything = op.concat([past, new], 2)
        sinks.append(op.assign(everything, variable))
        return everything

    x = op.gather(op.convert(op.constant(weights["gpt_neox.embed_in.weight"].half().numpy()), "f32"), ids, numbers(0))
    for layer in range(config.num_hidden_layers):
        at = f"gpt_neox.layers.{layer}"
        qkv = linear(norm(x, f"{at}.input_layernorm"), f"{at}.attention.query_key_value")
        qkv = op.transpose(op.reshape(qkv, numbers([0, 0, H, 3 * D]), True), numbers([0, 2, 1, 3]))
        q, k, v = op.variadic_split(qkv, numbers(-1), numbers([D, D, D])).outputs()
        k, v = remembered(rotate(k), f"key.{layer}"), remembered(v, f"value.{layer}")
        attended = op.transpose(op.scaled_dot_product_attention(rotate(q), k, v, mask), numbers([0, 2, 1, 3]))
        attended = linear(op.reshape(attended, numbers([0, 0, H * D]), True), f"{at}.attention.dense")
        if not config.use_parallel_residual:
            x = op.add(x, attended)
        inner = op.gelu(linear(norm(x, f"{at}.post_attention_layernorm"), f"{at}.mlp.dense_h_to_4h"), "erf")
        inner = linear(inner, f"{at}.mlp.dense_4h_to_h")
        x = op.add(op.add(x, attended), inner) if config.use_parallel_residual else op.add(x, inner)
    last = op.slice(x, numbers([-1]), numbers([2**31]), numbers([1]), numbers([1]))
    logits = linear(norm(last, "gpt_neox.final_layer_norm"), "embed_out")
    model = ov.Model([op.result(logits)], sinks, [ids, positions, beam, mask], "gpt_neox")
    ov.save_model(model, str(out), compress_to_fp16=False)
