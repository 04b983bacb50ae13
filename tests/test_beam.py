"""Beam search against transformers: the same tokens on several shapes; and its way through `LM`."""

import itertools

import pytest
import torch

from janeox import LM, JaneoxError
from janeox.config import GPTNeoXConfig, SamplingConfig
from janeox.engine.beam import beam_search
from janeox.engine.native_backend import NativeBackend
from janeox.engine.torch_backend import TorchBackend
from janeox.model import GPTNeoX
from test_model import shape, theirs

EOS = 3
ENDING = {0: 1.5, 1: 1.5, 2: 3.0, 3: 1.5, 5: 3.0}  # shape → what its logit of `</s>` grows by, so that some texts end
WAYS = list(itertools.product((False, True, "never"), (1.0, 0.0, -0.7, 2.0), (2, 3, 5)))


@pytest.mark.parametrize("number", ENDING)
def test_beams_equal_transformers_token_for_token(number, tmp_path):
    config, reasons = shape(number), set()
    reference = theirs(config, number)
    with torch.no_grad():
        reference.get_output_embeddings().weight[EOS] *= ENDING[number]
    reference.save_pretrained(tmp_path)
    model = GPTNeoX.from_pretrained(tmp_path)
    pick = torch.Generator().manual_seed(number)
    for early_stopping, length_penalty, num_beams in WAYS[number % 3 :: 3]:
        prompt = torch.randint(4, config.vocab_size, (6,), generator=pick).tolist()
        settings = {
            "num_beams": num_beams, "length_penalty": length_penalty, "early_stopping": early_stopping,
            "max_new_tokens": 16, "repetition_penalty": 1.2 if number % 2 else 1.0, "no_repeat_ngram_size": number % 4,
            "min_new_tokens": 0 if number % 3 else 5,
        }  # fmt: skip
        expected = reference.generate(
            torch.tensor([prompt]), do_sample=False, bos_token_id=2, eos_token_id=EOS, pad_token_id=0, **settings
        )[0, len(prompt) :].tolist()  # fmt: skip
        backend = TorchBackend(model, num_beams, len(prompt) + 16)
        found = beam_search(backend, None, prompt, SamplingConfig(**settings))
        assert found.ids == expected, settings
        assert found.finish_reason == ("stop" if expected[-1] == EOS else "length")
        reasons.add(found.finish_reason)
        native = NativeBackend.from_model(model, num_beams, len(prompt) + 16, bits=32)
        assert beam_search(native, None, prompt, SamplingConfig(**settings)).ids == expected
    assert reasons == {"stop", "length"}


@pytest.fixture(scope="module")
def lm(tokenizer):
    config = GPTNeoXConfig(tokenizer.vocab_size, 32, 2, 2, 64, max_position_embeddings=64, initializer_range=0.3)
    return LM(GPTNeoX(config).initialize(torch.Generator().manual_seed(0)).eval(), tokenizer)


def test_a_beam_ends_before_its_stop_string_and_at_the_context(lm):
    settings = {"num_beams": 3, "max_new_tokens": 12, "early_stopping": True}
    whole = lm.complete(["吾輩は"], **settings)[0]
    with torch.no_grad():
        prompt = lm.tokenizer.encode("吾輩は")
        logp = lm.model(torch.tensor([prompt + whole.ids]))[0, len(prompt) - 1 : -1].log_softmax(1)
    expected = logp.gather(1, torch.tensor(whole.ids)[:, None])[:, 0]
    assert torch.allclose(torch.tensor(whole.logprobs), expected, atol=1e-4)
    assert list(lm.stream("吾輩は", **settings)) == [whole.text] and len(whole.text) > 4
    ended = lm.complete(["吾輩は"], stop=[whole.text[2:4]], **settings)[0]
    assert ended.text == whole.text[:2] and ended.finish_reason == "stop"
    full = lm.complete([[5] * 60], num_beams=2, max_new_tokens=50, min_new_tokens=50)[0]
    assert len(full.ids) == 5 and full.finish_reason == "length"


def test_what_cannot_be_searched_for_is_an_error(lm):
    with pytest.raises(JaneoxError, match="num_beams"):
        lm.generate("あ", num_beams=0)
    with pytest.raises(JaneoxError, match="num_beams = 2"):
        lm.engine().submit([5], SamplingConfig(num_beams=2))
    with pytest.raises(JaneoxError, match="the prompt has 64 tokens"):
        lm.complete([[5] * 64], num_beams=2)
