"""One interface over the engines that `benchmarks.cpu_speed` compares; each is opened in a process of its own."""

import ctypes
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

ROWS, POSITIONS = 8, 640  # the most rows, and positions of a row


class Rival(Protocol):
    def decode(self, prompts: list[list[int]], steps: int) -> float:
        """Median seconds of a step that advances all rows by a token, after their prompts."""
        ...

    def prefill(self, prompt: list[int]) -> float:
        """Seconds from a prompt to the logits after it."""
        ...

    def logits(self, prompts: list[list[int]], following: list[list[int]]) -> np.ndarray:
        """(1 + steps, B, V): after prompts of one length, and after each of their `following` tokens."""
        ...


class Stepping(ABC):
    """An engine that can be asked for one step at a time."""

    @abstractmethod
    def start(self, prompts: list[list[int]]) -> None: ...

    @abstractmethod
    def step(self, tokens: Sequence[int]) -> None: ...

    @abstractmethod
    def latest(self) -> np.ndarray:
        """(B, V) logits of the last `start` or `step`."""
        ...

    def logits(self, prompts: list[list[int]], following: list[list[int]]) -> np.ndarray:
        self.start(prompts)
        found = [np.array(self.latest())]
        for tokens in zip(*following, strict=True):
            self.step(tokens)
            found.append(np.array(self.latest()))
        return np.stack(found)

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        self.start(prompts)
        times = []
        for number in range(steps + 2):
            begin = time.perf_counter()
            self.step([number + 5] * len(prompts))
            times.append(time.perf_counter() - begin)
        return statistics.median(times[2:])

    def prefill(self, prompt: list[int]) -> float:
        begin = time.perf_counter()
        self.start([prompt])
        return time.perf_counter() - begin


class Janeox(Stepping):
    def __init__(self, path: Path, threads: int):
        from janeox.config import GPTNeoXConfig
        from janeox.engine.native_backend import NativeBackend
        from janeox.engine.packed_file import read_packed
        from janeox.weights import read_json

        config = GPTNeoXConfig.from_hf(read_json(path / "config.json"))
        self.backend = NativeBackend(config, read_packed(path), ROWS, POSITIONS, threads=threads)

    def start(self, prompts: list[list[int]]) -> None:
        from janeox.engine.backend import Row

        self.lengths = [len(prompt) for prompt in prompts]
        self.found = self.backend.forward([Row(slot, 0, prompt) for slot, prompt in enumerate(prompts)])

    def step(self, tokens: Sequence[int]) -> None:
        from janeox.engine.backend import Row

        rows = [Row(slot, self.lengths[slot], [token]) for slot, token in enumerate(tokens)]
        self.found = self.backend.forward(rows)
        self.lengths = [length + 1 for length in self.lengths]

    def latest(self) -> np.ndarray:
        return self.found.numpy()


class LlamaCpp(Stepping):
    def __init__(self, path: Path, threads: int):
        import llama_cpp as api

        self.api = api
        api.llama_backend_init()
        self.silence = api.llama_log_callback(lambda *_: None)
        api.llama_log_set(self.silence, ctypes.c_void_p())
        self.model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
        options = api.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = ROWS * POSITIONS, 512, 512
        options.n_seq_max = ROWS
        options.n_threads = options.n_threads_batch = threads
        self.context = api.llama_init_from_model(self.model, options)
        if not self.context:
            raise RuntimeError(f"llama.cpp does not open {path}")

    def _decode(self, rows: list[list[int]], starts: list[int]) -> None:
        count = sum(map(len, rows))
        batch = self.api.llama_batch_init(count, 0, 1)
        batch.n_tokens = place = 0
        for number, (row, start) in enumerate(zip(rows, starts, strict=True)):
            for offset, token in enumerate(row):
                batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, start + offset, 1
                batch.seq_id[place][0], batch.logits[place] = number, offset == len(row) - 1
                place += 1
        batch.n_tokens = place
        if self.api.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        self.api.llama_get_logits_ith(self.context, -1)[0]
        self.api.llama_batch_free(batch)

    def start(self, prompts: list[list[int]]) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        self.lengths = [len(prompt) for prompt in prompts]
        self._decode(prompts, [0] * len(prompts))

    def step(self, tokens: Sequence[int]) -> None:
        self._decode([[token] for token in tokens], self.lengths)
        self.lengths = [length + 1 for length in self.lengths]

    def latest(self) -> np.ndarray:
        size = self.api.llama_vocab_n_tokens(self.api.llama_model_get_vocab(self.model))
        rows = [self.api.llama_get_logits_ith(self.context, row) for row in range(-len(self.lengths), 0)]
        return np.stack([np.ctypeslib.as_array(row, (size,)) for row in rows])


class OpenVINO(Stepping):
    def __init__(self, path: Path, threads: int):
        import openvino as ov

        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self.request = ov.Core().compile_model(str(path), "CPU", options).create_infer_request()

    def _infer(self, ids: np.ndarray) -> None:
        B, T = ids.shape
        positions = np.arange(self.length, self.length + T)
        seen = np.arange(self.length + T)[None] <= positions[:, None]
        mask = np.where(seen, np.float32(0), np.float32(-1e30))[None, None].repeat(B, 0)
        where = positions[None].repeat(B, 0)
        self.request.infer({"ids": ids, "positions": where, "beam_idx": np.arange(B, dtype=np.int32), "mask": mask})
        self.length += T

    def start(self, prompts: list[list[int]]) -> None:
        self.request.reset_state()
        self.length = 0
        self._infer(np.array(prompts))

    def step(self, tokens: Sequence[int]) -> None:
        self._infer(np.array(tokens)[:, None])

    def latest(self) -> np.ndarray:
        return self.request.get_output_tensor(0).data[:, 0]


class Transformers(Stepping):
    def __init__(self, path: Path, threads: int, dtype: str = "bfloat16"):
        from transformers import GPTNeoXForCausalLM

        torch.set_num_threads(threads)
        self.model = GPTNeoXForCausalLM.from_pretrained(path, dtype=dtype)

    @torch.inference_mode()
    def _forward(self, ids: torch.Tensor) -> None:
        found = self.model(ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.cache, self.found = found.past_key_values, found.logits[:, 0]

    def start(self, prompts: list[list[int]]) -> None:
        self.cache = None
        self._forward(torch.tensor(prompts))

    def step(self, tokens: Sequence[int]) -> None:
        self._forward(torch.tensor(tokens)[:, None])

    def latest(self) -> np.ndarray:
        return self.found.float().numpy()


class CTranslate2:
    def __init__(self, path: Path, threads: int):
        import ctranslate2

        self.model = ctranslate2.Generator(str(path), device="cpu", compute_type="int8", intra_threads=threads)

    def _generate(self, prompts: list[list[int]], count: int) -> float:
        texts = [[str(id) for id in prompt] for prompt in prompts]
        begin = time.perf_counter()
        found = self.model.generate_batch(
            texts, min_length=count, max_length=count, sampling_topk=1, include_prompt_in_result=False, end_token=[]
        )
        seconds = time.perf_counter() - begin
        if any(len(row.sequences_ids[0]) != count for row in found):
            raise RuntimeError("CTranslate2 stopped early")
        return seconds

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        """It has no call for one step: a text with more tokens less one with few."""
        self._generate(prompts, 1)
        return (self._generate(prompts, steps + 1) - self._generate(prompts, 1)) / steps

    def prefill(self, prompt: list[int]) -> float:
        return self._generate([prompt], 1)

    def logits(self, prompts: list[list[int]], following: list[list[int]]) -> np.ndarray:
        """Of whole texts in one pass: its cache is not to be seen."""
        texts = [[str(id) for id in prompt + after] for prompt, after in zip(prompts, following, strict=True)]
        found = np.array(self.model.forward_batch(texts))  # (B, T, V)
        return found[:, len(prompts[0]) - 1 :].swapaxes(0, 1)
