"""The model against transformers: same logits, same files, in both directions."""

import itertools
import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig as TheirConfig
from transformers import GPTNeoXForCausalLM

from janeox import JaneoxError, weights
from janeox.cache import KVCache
from janeox.config import GPTNeoXConfig
from janeox.model import GPTNeoX

TOLERANCE = 1e-5


def shape(number: int) -> GPTNeoXConfig:
    """A random small shape; the first ones walk through every combination that matters."""
    pick = random.Random(number)
    head_dim = [16, 32, 64, 128][number % 4]
    heads = pick.choice([1, 2, 3])
    return GPTNeoXConfig(
        vocab_size=pick.choice([97, 256]),
        hidden_size=head_dim * heads,
        num_hidden_layers=pick.choice([1, 2, 3]),
        num_attention_heads=heads,
        intermediate_size=pick.choice([48, 4 * head_dim * heads]),
        max_position_embeddings=64,
        use_parallel_residual=bool(number & 1),
        rotary_pct=0.25 if number & 2 else 1.0,
        tie_word_embeddings=bool(number & 4),
        attention_bias=not number & 8,
        rotary_emb_base=pick.choice([10000.0, 5000.0]),
        hidden_act=pick.choice(["gelu", "gelu_new", "gelu_pytorch_tanh"]),
        rope_scaling_factor=pick.choice([1.0, 1.0, 2.0]),
    )


def theirs(config: GPTNeoXConfig, seed: int = 0) -> GPTNeoXForCausalLM:
    """A transformers model of the same shape with weights large enough for errors to show."""
    torch.manual_seed(seed)
    model = GPTNeoXForCausalLM(TheirConfig(**config.to_hf("float32"), attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.normal_(0.0, 0.08)
    return model


@pytest.mark.parametrize("number", range(16))
def test_logits_and_files_equal_transformers(number, tmp_path):
    config = shape(number)
    reference = theirs(config, number)
    reference.save_pretrained(tmp_path / "theirs")
    model = GPTNeoX.from_pretrained(tmp_path / "theirs")
    assert model.config == config
    ids = torch.randint(0, config.vocab_size, (3, 23))
    with torch.no_grad():
        expected = reference(ids).logits
        assert (model(ids) - expected).abs().max() < TOLERANCE

        cache = KVCache(config, 3, 23, model.dtype, model.device)
        cuts = [0, 9, *range(12, 24)]  # a prompt, a chunk of it, then token by token
        steps = [
            model(ids[:, start:end], cache=cache.rows([0, 1, 2], [start] * 3, end - start))
            for start, end in itertools.pairwise(cuts)
        ]
        assert (torch.cat(steps, 1) - expected).abs().max() < TOLERANCE

    model.save_pretrained(tmp_path / "ours")
    again, info = GPTNeoXForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        assert (again(ids).logits - expected).abs().max() < TOLERANCE
    mine, other = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    assert mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("side", ["left", "right"])
def test_ragged_batches_equal_transformers_row_by_row(number, side, tmp_path):
    config = shape(number)
    reference = theirs(config, number)
    reference.save_pretrained(tmp_path)
    model = GPTNeoX.from_pretrained(tmp_path)
    lengths = [3, 11, 7]
    rows = [torch.randint(0, config.vocab_size, (n,)) for n in lengths]
    ids, mask = torch.zeros(3, 11, dtype=torch.long), torch.zeros(3, 11, dtype=torch.bool)
    for row, (n, tokens) in enumerate(zip(lengths, rows, strict=True)):
        span = slice(11 - n, 11) if side == "left" else slice(0, n)
        ids[row, span], mask[row, span] = tokens, True
    with torch.no_grad():
        full = model(ids, mask=mask)
        theirs_padded = reference(ids, attention_mask=mask.long(), position_ids=(mask.long().cumsum(1) - 1).clamp(0))
        for row, tokens in enumerate(rows):
            alone = reference(tokens[None]).logits[0]
            assert (full[row, mask[row]] - alone).abs().max() < TOLERANCE
        assert (full[mask] - theirs_padded.logits[mask]).abs().max() < TOLERANCE


PUBLISHED = {  # config.json of rinna/japanese-gpt-neox-3.6b, complete
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 2,
    "eos_token_id": 3,
    "hidden_act": "gelu",
    "hidden_size": 2816,
    "initializer_range": 0.02,
    "intermediate_size": 11264,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 22,
    "num_hidden_layers": 36,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
    "use_parallel_residual": False,
    "vocab_size": 32000,
}


def test_the_default_is_the_published_model():
    config = GPTNeoXConfig()
    assert config.to_hf("float16") == PUBLISHED
    assert len(json.dumps(PUBLISHED, indent=2)) == 534  # the published file's size in bytes
    assert GPTNeoXConfig.from_hf(PUBLISHED) == config
    with torch.device("meta"):
        model, other = GPTNeoX(config), GPTNeoXForCausalLM(TheirConfig(**PUBLISHED))
    names = set(model.state_dict())
    assert sum(p.numel() for p in model.parameters()) == 3_607_245_312
    assert len(names) == len(list(model.parameters())) == 436
    assert names == {name.replace("lm_head.", "embed_out.") for name in other.state_dict()}


@pytest.fixture
def folder(tmp_path):
    """A transformers folder of two layers, and the model that wrote it."""
    reference = theirs(shape(0))
    reference.save_pretrained(tmp_path / "m")
    return tmp_path / "m", reference


def add_old_buffers(tensors: dict, config: GPTNeoXConfig) -> dict:
    """What transformers of 2023 and trlx left in `pytorch_model.bin`."""
    old = dict(tensors)
    for layer in range(config.num_hidden_layers):
        at = f"gpt_neox.layers.{layer}.attention."
        old[at + "bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool).tril()
        old[at + "masked_bias"] = torch.tensor(-1e9)
        # Rounded to bfloat16 and therefore wrong: whoever reads it, fails.
        old[at + "rotary_emb.inv_freq"] = torch.full((8,), 0.123, dtype=torch.bfloat16)
    old |= {"v_head.0.weight": torch.zeros(8, 4), "v_head.0.bias": torch.zeros(8), "v_head.2.weight": torch.zeros(1, 8)}
    return old


@pytest.mark.parametrize("form", ["bin", "bin-old-pickle", "bin-sharded", "safetensors-sharded", "safetensors-buffers"])
def test_opens_every_form_of_weights(folder, form):
    path, reference = folder
    file = path / "model.safetensors"
    tensors = load_file(file)
    file.unlink()
    old = add_old_buffers(tensors, shape(0))
    halves = [dict(list(old.items())[::2]), dict(list(old.items())[1::2])]
    if form == "bin":
        torch.save(old, path / "pytorch_model.bin")
    elif form == "bin-old-pickle":
        torch.save(old, path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    elif form == "safetensors-buffers":
        save_file(old, file)
    else:
        suffix = "bin" if form.startswith("bin") else "safetensors"
        stem = "pytorch_model" if suffix == "bin" else "model"
        weight_map = {}
        for number, half in enumerate(halves, 1):
            name = f"{stem}-{number:05d}-of-00002.{suffix}"
            (torch.save if suffix == "bin" else save_file)(half, path / name)
            weight_map |= dict.fromkeys(half, name)
        index = json.dumps({"metadata": {}, "weight_map": weight_map})
        (path / f"{stem}.{suffix}.index.json").write_text(index)
    ids = torch.randint(0, 97, (2, 9))
    with torch.no_grad():
        assert (GPTNeoX.from_pretrained(path)(ids) - reference(ids).logits).abs().max() < TOLERANCE


def test_writes_shards_that_transformers_opens(folder, tmp_path):
    path, reference = folder
    model = GPTNeoX.from_pretrained(path)
    model.save_pretrained(tmp_path / "s")
    (tmp_path / "s" / "model.safetensors").unlink()
    weights.write_weights(model.state_dict(), tmp_path / "s", max_file_bytes=20_000)
    assert len(list((tmp_path / "s").glob("model-*.safetensors"))) > 2
    ids = torch.randint(0, 97, (2, 9))
    with torch.no_grad():
        for opened in (GPTNeoXForCausalLM.from_pretrained(tmp_path / "s")(ids).logits,
                       GPTNeoX.from_pretrained(tmp_path / "s")(ids)):  # fmt: skip
            assert (opened - reference(ids).logits).abs().max() < TOLERANCE


def test_stored_dtype_is_kept_or_changed(folder, tmp_path):
    path, _ = folder
    GPTNeoX.from_pretrained(path).save_pretrained(tmp_path / "half", torch.float16)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "float16"
    assert GPTNeoX.from_pretrained(tmp_path / "half").dtype == torch.float16
    assert GPTNeoX.from_pretrained(tmp_path / "half", torch.float32).dtype == torch.float32


def break_config(path):
    table = json.loads((path / "config.json").read_text())
    return lambda **changes: (path / "config.json").write_text(json.dumps(table | changes))


def test_bad_folders_are_named(folder, tmp_path):
    path, _ = folder
    config = break_config(path)
    for changes, message in (
        ({"model_type": "llama"}, "llama"),
        ({"hidden_size": 33}, "does not divide"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "yarn"),
        ({"vocab_size": 98}, "embed_out.weight"),
        ({"num_hidden_layers": 5}, "missing"),
        ({"num_hidden_layers": 0}, "at least 1"),
    ):
        config(**changes)
        with pytest.raises(JaneoxError, match=message):
            GPTNeoX.from_pretrained(path)
    (path / "config.json").write_text('{"model_type": ')
    with pytest.raises(JaneoxError, match="not valid JSON"):
        GPTNeoX.from_pretrained(path)
    with pytest.raises(JaneoxError, match=r"no config\.json"):
        GPTNeoX.from_pretrained(tmp_path / "nowhere")


def test_bad_weights_are_named(folder):
    path, _ = folder
    file = path / "model.safetensors"
    whole = file.read_bytes()
    for cut in (0, 5, 100, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(JaneoxError, match=r"model\.safetensors: damaged"):
            GPTNeoX.from_pretrained(path)
    file.unlink()
    with pytest.raises(JaneoxError, match="no weights there"):
        GPTNeoX.from_pretrained(path)
    bin_file = path / "pytorch_model.bin"
    torch.save({"x": torch.zeros(100)}, bin_file)
    bin_file.write_bytes(bin_file.read_bytes()[:200])
    with pytest.raises(JaneoxError, match=r"pytorch_model\.bin: damaged"):
        GPTNeoX.from_pretrained(path)
    torch.save({"x": Trap()}, bin_file)
    with pytest.raises(JaneoxError, match="not opened for safety"):
        GPTNeoX.from_pretrained(path)
    bin_file.unlink()
    index = path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    with pytest.raises(JaneoxError, match="not a file in the same folder"):
        GPTNeoX.from_pretrained(path)
    index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(JaneoxError, match="missing"):
        GPTNeoX.from_pretrained(path)


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (print, ("code from a model file ran",))


def test_a_hub_id_uses_the_cache_and_honours_offline_mode(folder, tmp_path, monkeypatch):
    path, _ = folder
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(JaneoxError, match="not to be had from the Hub"):
        weights.resolve("rinna/japanese-gpt-neox-3.6b")
    # The cache's own layout, as a download leaves it.
    cached = tmp_path / "hub" / "models--rinna--japanese-gpt-neox-3.6b"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    path.rename(cached / "snapshots" / ("0" * 40))
    found = weights.resolve("rinna/japanese-gpt-neox-3.6b")
    assert GPTNeoX.from_pretrained(found).config.hidden_size == shape(0).hidden_size
    with pytest.raises(JaneoxError, match="no such folder"):
        weights.resolve("not a folder")
