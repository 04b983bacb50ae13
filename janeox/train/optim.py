"""AdamW and Muon, and the learning rate of a step."""

import math

import torch
from torch import Tensor, nn

from janeox.config import OptimConfig
from janeox.products import matmul
from janeox.train.parallel import by_mesh, cut_like, whole

# Coefficients of the quintic Newton-Schulz iteration (Keller Jordan, "Muon", 2024): steep at 0, so that five rounds
# bring all singular values near 1.
QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for the hidden matrices (Jordan 2024; update size of arXiv 2502.16982).

    torch has a Muon too; this one runs in float32 where the hardware has no fast bfloat16, and treats the q, k and v of
    a fused query_key_value matrix each as the matrix that it is.

    Args:
        matrices: (rows, columns) parameters.
        fused: (3·C, C) query_key_value parameters, laid out (H, 3, D) along the rows.
        head_dim: D.
    """

    def __init__(self, matrices: list[Tensor], fused: list[Tensor], head_dim: int, lr: float, weight_decay: float):
        groups = [{"params": matrices, "fused": False}, {"params": fused, "fused": True}]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})
        self.head_dim = head_dim

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = whole(parameter.grad.lerp(momentum, group["momentum"]))  # Nesterov
                if group["fused"]:
                    split = (
                        update.view(-1, 3, self.head_dim, update.shape[1]).transpose(0, 1).flatten(1, 2)
                    )  # (3, C, C)
                    update = orthogonalize(split).unflatten(1, (-1, self.head_dim)).transpose(0, 1).flatten(0, 2)
                else:
                    update = orthogonalize(update)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                # An orthogonal (n, m) matrix has RMS 1/√max(n, m); AdamW's updates have about 0.2.
                rows = parameter.shape[0] // 3 if group["fused"] else parameter.shape[0]
                parameter.add_(
                    cut_like(update, parameter), alpha=-group["lr"] * 0.2 * math.sqrt(max(rows, parameter.shape[1]))
                )


def orthogonalize(matrix: Tensor, rounds: int = 5) -> Tensor:
    """The nearest matrix with singular values near 1, for (…, n, m); returns the input's dtype."""
    x = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(rounds):
        gram = matmul(x, x.mT)
        x = a * x + matmul(b * gram + c * matmul(gram, gram), x)
    return (x.mT if tall else x).to(matrix.dtype)


def build(model: nn.Module, config: OptimConfig, head_dim: int) -> list[torch.optim.Optimizer]:
    """The optimizers that together own every parameter that is trained. Only matrices decay, never biases and norms."""
    matrices: list[Tensor] = []
    fused: list[Tensor] = []
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            plain.append(parameter)
        elif config.name == "adamw" or "embed" in name:
            decayed.append(parameter)
        else:
            (fused if "query_key_value" in name else matrices).append(parameter)
    groups = [
        {"params": group, "weight_decay": decay}
        for parameters, decay in ((decayed, config.weight_decay), (plain, 0.0))
        for group in by_mesh(parameters)
    ]
    betas = (config.beta1, config.beta2)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.eps, fused=True)
    ]
    if matrices:
        optimizers.append(Muon(matrices, fused, head_dim, config.learning_rate, config.weight_decay))
    return optimizers


def learning_rate(step: int, num_steps: int, config: OptimConfig) -> float:
    """Of step 0 … num_steps − 1: a linear rise that is never 0, then the schedule, to final_fraction of the peak."""
    warmup = max(1, round(num_steps * config.warmup_fraction))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "cosine":
        done = (step - warmup + 1) / max(1, num_steps - warmup)
        share = 0.5 * (1 + math.cos(math.pi * done))
    else:
        decay = max(1, num_steps // 5)
        share = min(1.0, (num_steps - 1 - step) / decay)
    return config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * share)
