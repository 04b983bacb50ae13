"""What a step costs: operations a token, and the peak of the hardware that does them."""

import resource
import sys
from pathlib import Path

import torch

from janeox.config import GPTNeoXConfig

# Dense bfloat16 operations a second, from the makers' data sheets, by a part of the device's name.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12, "L40S": 362e12}


def matrix_parameters(config: GPTNeoXConfig) -> int:
    """Weights that every token is multiplied with: those of the layers and the head, not the embedding."""
    C, M = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (4 * C * C + 2 * C * M) + config.vocab_size * C


def num_parameters(config: GPTNeoXConfig) -> int:
    C, M = config.hidden_size, config.intermediate_size
    biases = 4 * C if config.attention_bias else 0
    small = config.num_hidden_layers * (biases + M + C + 4 * C) + 2 * C
    embedding = 0 if config.tie_word_embeddings else config.vocab_size * C
    return matrix_parameters(config) + embedding + small


def flops_per_token(config: GPTNeoXConfig, sequence_length: int) -> float:
    """Of a training step: 6 a matrix weight, and 12·L·C·T for attention (arXiv 2204.02311, appendix B).

    What is computed again to save memory does not count, and causal attention counts as if it were full.
    """
    attention = 12 * config.num_hidden_layers * config.hidden_size * sequence_length
    return 6.0 * matrix_parameters(config) + attention


def peak_flops(device: torch.device) -> float | None:
    """bfloat16 operations a second that the device can do at best; none where no data sheet is known here."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK.items() if part in name), None)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process held at most: of the GPU, or of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):  # getrusage begins with what the process held that started this one
            return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
