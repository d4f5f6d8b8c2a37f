#!/usr/bin/env python3
"""The Partition Transformer and the masked baseline in PyTorch, to measure this project's speed against.

    python torch_pgm.py check ../pgm-model/tests/golden/text_freqs_linear     # its logits are those of the public code
    python torch_pgm.py bench --what train --model pgm --hidden 256 --heads 4 --encoder 3 --decoder 3 --length 256 --vocab 8192 --batch 8

`bench` prints one JSON object with `seconds_median`. Fused attention, a fused AdamW, no Python loop over tokens; without masks
where every token sees all others. Tensors are made on PyTorch's default device. compare_torch.sh runs it beside this project.
Needs torch; `check` also safetensors.
"""

import argparse
import json
import math
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class Scale(nn.Module):
    """Layer norm with a weight and no bias."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x, shift=None, scale=None):
        x = F.layer_norm(x, x.shape[-1:], self.weight)
        return x if scale is None else torch.addcmul(shift, x, 1 + scale)


def feed_forward(width, ratio):
    return nn.Sequential(nn.Linear(width, ratio * width), nn.GELU("tanh"), nn.Linear(ratio * width, width))


def split_heads(x, n_heads):
    """[B, S, H] to [B, heads, S, H / heads]."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def turn(x, angles):
    """Rotary positions: the halves of each head are turned by `angles`, a pair of [B, S, H / heads / 2]."""
    cos, sin = (part.unsqueeze(1) for part in angles)
    left, right = x.chunk(2, -1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)


def attention(q, k, v, q_angles, k_angles, mask):
    out = F.scaled_dot_product_attention(turn(q, q_angles), turn(k, k_angles), v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


class EncoderBlock(nn.Module):
    def __init__(self, width, heads, cond, ratio):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = Scale(width), Scale(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.mlp = feed_forward(width, ratio)
        self.adaLN_modulation = nn.Linear(cond, 6 * width)

    def forward(self, x, condition, angles, mask):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).unsqueeze(1).chunk(6, -1)
        parts = self.attn_qkv(self.norm1(x, shift1, scale1)).chunk(3, -1)
        q, k, v = (split_heads(part, self.heads) for part in parts)
        x = torch.addcmul(x, gate1, self.attn_out(attention(q, k, v, angles, angles, mask)))
        return torch.addcmul(x, gate2, self.mlp(self.norm2(x, shift2, scale2)))


class DecoderBlock(nn.Module):
    def __init__(self, width, heads, cond, ratio):
        super().__init__()
        self.heads = heads
        self.q_norm1, self.kv_norm1, self.norm2 = Scale(width), Scale(width), Scale(width)
        self.attn_q = nn.Linear(width, width, bias=False)
        self.attn_kv = nn.Linear(width, 2 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.mlp = feed_forward(width, ratio)
        self.adaLN_modulation = nn.Linear(cond, 6 * width)

    def forward(self, x, encoded, condition, q_angles, k_angles, mask):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).unsqueeze(1).chunk(6, -1)
        q = split_heads(self.attn_q(self.q_norm1(x, shift1, scale1)), self.heads)
        k, v = (split_heads(part, self.heads) for part in self.attn_kv(self.kv_norm1(encoded)).chunk(2, -1))
        x = torch.addcmul(x, gate1, self.attn_out(attention(q, k, v, q_angles, k_angles, mask)))
        return torch.addcmul(x, gate2, self.mlp(self.norm2(x, shift2, scale2)))


class GroupSwap(nn.Module):
    """Queries of the positions alone, keys and values of the other group."""

    def __init__(self, width, heads, length):
        super().__init__()
        self.heads = heads
        self.base_embedding = nn.Parameter(torch.randn(1, width))
        self.pre_query_norm = nn.LayerNorm(width)
        self.query_processor = nn.Linear(width, width)
        self.hidden_to_key_value = nn.Linear(width, 2 * width)
        self.output_linear = nn.Linear(width, width)
        angles = torch.outer(torch.arange(length), 10_000 ** (-2 * torch.arange(width // 2) / width))
        self.register_buffer("waves", torch.cat([angles.cos(), angles.sin()], -1), persistent=False)

    def forward(self, encoded, positions, q_angles, k_angles, mask):
        queries = self.query_processor(self.pre_query_norm(self.base_embedding + self.waves[positions]))
        queries = split_heads(queries, self.heads).expand(len(encoded), -1, -1, -1)
        k, v = (split_heads(part, self.heads) for part in self.hidden_to_key_value(encoded).chunk(2, -1))
        return self.output_linear(attention(queries, k, v, q_angles, k_angles, mask))


class Head(nn.Module):
    def __init__(self, width, n_classes, cond):
        super().__init__()
        self.norm_final = Scale(width)
        self.linear = nn.Linear(width, n_classes)
        self.adaLN_modulation = nn.Linear(cond, 2 * width)

    def forward(self, x, condition):
        return self.linear(self.norm_final(x, *self.adaLN_modulation(condition).unsqueeze(1).chunk(2, -1)))


class Network(nn.Module):
    """What both models have. Names of parameters are the published ones."""

    def __init__(self, n_classes, width, heads, length, cond):
        super().__init__()
        self.length, self.n_classes = length, n_classes
        angles = torch.outer(torch.arange(length), 10_000 ** (-torch.arange(width // heads // 2) / (width // heads // 2)))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.vocab_embed = nn.ParameterDict({"embedding": nn.Parameter(0.02 * torch.randn(n_classes, width))})
        self.sigma_map = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(256, cond), nn.SiLU(), nn.Linear(cond, cond))})
        self.output_layer = Head(width, n_classes, cond)

    def embed(self, tokens):
        return F.embedding(tokens, self.vocab_embed["embedding"])

    def condition(self):
        """The embedded time, which is 0 for models without time conditioning: one row for all."""
        time_zero = torch.cat([self.cos.new_ones(1, 128), self.cos.new_zeros(1, 128)], -1)
        return F.silu(self.sigma_map["mlp"](time_zero))

    def angles(self, positions):
        return self.cos[positions], self.sin[positions]


class PartitionModel(Network):
    def __init__(self, n_classes, width, heads, length, cond, n_blocks, ratio=4):
        super().__init__(n_classes, width, heads, length, cond)
        sizes = (width, heads, cond, ratio)
        self.encoder = nn.ModuleDict({"blocks": nn.ModuleList(EncoderBlock(*sizes) for _ in range(n_blocks[0]))})
        layers = nn.ModuleList(DecoderBlock(*sizes) for _ in range(n_blocks[1]))
        self.decoder = nn.ModuleDict({"group_swap": GroupSwap(width, heads, length), "layers": layers})

    def evaluate(self, tokens, at, asked, own=None, other=None):
        """Logits at the positions `asked`, of tokens at the positions `at`; the masks say who sees whom, None is everyone."""
        condition, k_angles, q_angles = self.condition(), self.angles(at), self.angles(asked)
        encoded = self.embed(tokens)
        for block in self.encoder["blocks"]:
            encoded = block(encoded, condition, k_angles, own)
        x = self.decoder["group_swap"](encoded, asked, q_angles, k_angles, other)
        for block in self.decoder["layers"]:
            x = block(x, encoded, condition, q_angles, k_angles, other)
        return self.output_layer(x, condition)

    def forward(self, tokens, groups):
        """The training path: each group is predicted from the other."""
        positions = torch.arange(tokens.shape[1]).unsqueeze(0)
        same = groups.unsqueeze(1).unsqueeze(-1) == groups.unsqueeze(1).unsqueeze(-2)
        return self.evaluate(tokens, positions, positions, same, ~same)

    @torch.no_grad()
    def sample(self, n, steps):
        """Equally many tokens in each step, in a random order; only decoded tokens are computed."""
        tokens, at = torch.zeros(n, 1, dtype=torch.long), torch.zeros(n, 1, dtype=torch.long)
        order = torch.rand(n, self.length - 1).argsort(-1) + 1
        for part in order.tensor_split(steps, -1):
            logits = self.evaluate(tokens, at, part)
            tokens, at = torch.cat([tokens, draw(logits)], -1), torch.cat([at, part], -1)
        return torch.empty_like(tokens).scatter_(-1, at, tokens)


class MaskedModel(Network):
    def __init__(self, n_classes, width, heads, length, cond, n_blocks, ratio=4):
        super().__init__(n_classes, width, heads, length, cond)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, cond, ratio) for _ in range(sum(n_blocks)))

    def forward(self, tokens, _groups=None):
        condition, x = self.condition(), self.embed(tokens)
        angles = self.angles(torch.arange(tokens.shape[1]).unsqueeze(0))
        for block in self.blocks:
            x = block(x, condition, angles, None)
        return self.output_layer(x, condition)

    @torch.no_grad()
    def sample(self, n, steps):
        """MDLM's ancestral sampler: all positions in each step in which a token has changed."""
        mask = self.n_classes - 1
        tokens = torch.full((n, self.length), mask)
        tokens[:, 0] = 0
        logits = None
        for left in range(steps, 0, -1):
            logits = self(tokens) if logits is None else logits
            decodes = (tokens == mask) & (torch.rand(n, self.length) < 1 / left)
            if decodes.any():
                tokens, logits = torch.where(decodes, draw(logits), tokens), None
        return tokens


def draw(logits):
    """A token for each position but the mask, in float64."""
    logits = logits.double()
    logits[..., -1] = -math.inf
    return (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)


def build(kind, sizes):
    return {"pgm": PartitionModel, "mdlm": MaskedModel}[kind](**sizes)


def check(folder):
    """The largest difference to the logits of a golden folder."""
    from safetensors.torch import load_file

    with open(f"{folder}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    is_partition = "encoder" in config
    n_blocks = (config["encoder"]["n_blocks"], config["decoder"]["n_blocks"]) if is_partition else (config["n_blocks"], 0)
    sizes = dict(n_classes=config["vocab_size"], width=config["hidden_size"], heads=config["n_heads"],
                 length=config["length"], cond=config["cond_dim"], n_blocks=n_blocks)
    model = build("pgm" if is_partition else "mdlm", sizes).eval()
    weights = load_file(f"{folder}/reference.safetensors").items()
    model.load_state_dict({name.removeprefix("backbone."): value for name, value in weights if "inv_freq" not in name})
    found = load_file(f"{folder}/io.safetensors")
    with torch.no_grad():
        if not is_partition:
            return (model(found["masked_tokens"].long()) - found["logits"]).abs().max().item()
        differences = [(model(found["tokens"].long(), found["groups"]) - found["train_logits"]).abs().max().item()]
        for row, n in enumerate(found["clean_lengths"].tolist()):
            clean, at = (found[name][row:row + 1, :n].long() for name in ("clean_tokens", "clean_positions"))
            logits = model.evaluate(clean, at, found["decode_positions"][row:row + 1].long())
            differences.append((logits - found["decode_logits"][row:row + 1]).abs().max().item())
        return max(differences)


def bench(args):
    torch.manual_seed(0)
    if args.threads:
        torch.set_num_threads(args.threads)
    sizes = dict(n_classes=args.vocab, width=args.hidden, heads=args.heads, length=args.length, cond=128,
                 n_blocks=(args.encoder, args.decoder))
    model = build(args.model, sizes).eval()
    tokens = torch.randint(args.vocab - 1, (args.batch, args.length))
    groups = torch.rand(args.batch, args.length) < 0.5
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)

    def train():
        loss = F.cross_entropy(model(tokens, groups).flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def forward():
        with torch.no_grad():
            model(tokens, groups)

    run = {"train": train, "forward": forward, "sample": lambda: model.sample(args.batch, args.steps)}[args.what]
    seconds = []
    for _ in range(args.warmup + args.runs):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[args.warmup:])
    print(json.dumps({
        "model": args.model, "what": args.what, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "parameters": sum(value.numel() for value in model.parameters()), "seconds": seconds[args.warmup:],
        "seconds_median": median, "tokens_per_second": args.batch * args.length / median,
    }))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check").add_argument("folder", nargs="+")
    options = commands.add_parser("bench")
    options.add_argument("--what", choices=["train", "forward", "sample"], default="sample")
    options.add_argument("--model", choices=["pgm", "mdlm"], default="pgm")
    numbers = dict(hidden=768, heads=12, encoder=6, decoder=6, length=1024, vocab=50258, batch=1, steps=32, runs=3, warmup=1, threads=0)
    for name, value in numbers.items():
        options.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    if args.command == "bench":
        return bench(args)
    for folder in args.folder:
        print(f"{folder}: {check(folder):.1e}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"torch_pgm.py: {error}")
