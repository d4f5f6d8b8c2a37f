"""Writes `gradients.safetensors` beside each golden model: the loss and its gradients as PyTorch computes them.

    python gradients.py path/to/pgm_torch.py [golden folder ...]

The loss is the mean of the golden `train_loss_per_token` (the NELBO for the masked model).
"""
import importlib.util
import math
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

spec = importlib.util.spec_from_file_location("pgm_torch", sys.argv[1])
peer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(peer)
here = pathlib.Path(__file__).parent
for folder in sys.argv[2:] or [str(p.parent) for p in sorted(here.glob("*/config.json"))]:
    model, io = peer.load(folder)
    masked = "masked_tokens" in io
    logits = model(io["masked_tokens"]) if masked else model(io["tokens"], io["groups"])
    logits = logits.clone()
    logits[..., -1] = -math.inf
    ce = F.cross_entropy(logits.flatten(0, 1), io["tokens"].flatten(), reduction="none").view_as(io["tokens"])
    t = io["t"][:, None]
    if masked:
        hidden = io["masked_tokens"] == logits.shape[-1] - 1
        per_token = torch.where(hidden, ce / t, torch.zeros(()))
        golden = io["nelbo_per_token"]
    else:
        per_token = torch.where(io["groups"] == 1, ce / t, ce / (1 - t).clamp_min(1e-3)) / 2
        golden = io["train_loss_per_token"]
    print(folder, "difference to the golden loss:", (per_token - golden).abs().max().item())
    loss = per_token.mean()
    loss.backward()
    tensors = {name: p.grad.contiguous() for name, p in model.named_parameters()}
    save_file(tensors | {"loss": loss.detach().reshape(1)}, pathlib.Path(folder) / "gradients.safetensors")
