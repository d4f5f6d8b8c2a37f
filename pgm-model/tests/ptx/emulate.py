"""Runs the attention kernels for tensor cores without a GPU: an emulator of the PTX that CUDA compiles of them.

    cargo run --manifest-path pgm-model/tests/ptx/Cargo.toml -- FOLDER     # links LLVM 23, see Burn's CUDA backend
    python3 pgm-model/tests/ptx/emulate.py FOLDER                          # needs numpy

CUDA_PATH must name a folder with nvvm/libdevice/libdevice.10.bc (PyPI: nvidia-cuda-nvcc-cu12). What comes out is compared
with float64. The units of a cube go in step, so a missing barrier stays unseen; reads of memory that was never written,
accesses outside a buffer and instructions of a whole plane by part of one are errors.
"""
import re
import sys
from pathlib import Path

import numpy as np

UNITS = 128
WORD = np.uint32
EVERY = np.arange(UNITS)


class Kernel:
    """The entry of a PTX file: its instructions, where labels point, its parameters."""

    def __init__(self, path):
        text = "\n".join(line.split("//")[0] for line in path.read_text().splitlines())
        self.parameters = re.findall(r"\.param \.u64[^\n]* (\w+_param_\d+)", text[: text.index("{")])
        body = text[text.index("{") + 1 :]
        body = body[: re.search(r"^\}", body, re.M).start()]
        self.code, self.labels = [], {}
        for part in body.split(";"):
            part = part.strip()
            while label := re.match(r"^(\$\w+):\s*", part):
                self.labels[label.group(1)] = len(self.code)
                part = part[label.end() :]
            if part and not part.startswith(".reg"):
                whole = re.match(r"^(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)\s*(.*)$", " ".join(part.split()))
                unless, guard, name, rest = whole.groups()
                operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,{}\[\]]+", rest)
                self.code.append((guard, unless == "!", name, [operand.strip() for operand in operands if operand.strip()]))


def f32(words):
    return words.astype(WORD).view(np.float32)


def bits(numbers):
    return numbers.astype(np.float32).view(WORD)


def rounded(numbers, kind):
    """Float32 numbers as 16 bits, or as the 32 of tf32."""
    words = bits(numbers).astype(np.uint64)
    if kind == "bf16":
        return (words + 0x7FFF + (words >> 16 & 1) >> 16).astype(WORD)
    if kind == "f16":
        return numbers.astype(np.float16).view(np.uint16).astype(WORD)
    return (words + 0x1000 >> 13 << 13).astype(WORD)


def widened(words, kind):
    """The numbers of a word, in float64."""
    if kind == "tf32":
        return [f32(words & 0xFFFFE000).astype(float)]
    halves = [words & 0xFFFF, words >> 16]
    if kind == "f16":
        return [half.astype(np.uint16).view(np.float16).astype(float) for half in halves]
    return [f32(half << 16).astype(float) for half in halves]


def down(exact):
    """Rounded towards minus infinity."""
    near = exact.astype(np.float32)
    return np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)


U32 = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << b, "shr": lambda a, b: a >> b, "min": np.minimum, "max": np.maximum,
}
F32 = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.fmax, "min": np.fmin}
COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}


class Cube:
    """The units of one cube. An address in global memory is the number of its buffer, from 1, and an offset below it."""

    def __init__(self, kernel, buffers, grid, place):
        self.kernel, self.buffers, self.registers = kernel, buffers, {"cube_shared": np.zeros(UNITS, np.uint64)}
        self.shared, self.written = np.zeros(1 << 16, WORD), np.zeros(1 << 16, bool)
        special = {"%tid.x": EVERY, "%laneid": EVERY % 32}
        for axis, count, index in zip("xyz", grid, place):
            special |= {f"%nctaid.{axis}": EVERY * 0 + count, f"%ctaid.{axis}": EVERY * 0 + index}
        self.registers |= {name: value.astype(WORD) for name, value in special.items()}

    def run(self):
        at, waits, ended = np.zeros(UNITS, int), np.zeros(UNITS, bool), np.zeros(UNITS, bool)
        while not ended.all():
            ready = ~ended & ~waits
            if not ready.any():
                assert waits.all() and len(set(at)) == 1, "units wait at different places"
                waits[:] = False
                continue
            now = at[ready].min()
            units = ready & (at == now)
            guard, unless, name, operands = self.kernel.code[now]
            at[units] = now + 1
            if guard:
                units = units & (self.registers[guard] != unless)
            if name.startswith("bra"):
                at[units] = self.kernel.labels[operands[0]]
            elif name == "ret":
                ended |= units
            elif name == "bar.sync":
                waits |= units
            else:
                assert not guard, name
                self.do(name.split("."), operands, units)

    def get(self, operand, kind=np.uint64):
        if operand in self.registers:
            return self.registers[operand].astype(kind)
        if operand.startswith("0f"):
            return np.full(UNITS, int(operand[2:], 16)).astype(kind)
        return np.full(UNITS, int(operand, 0) & (1 << 64) - 1, np.uint64).astype(kind)

    def put(self, name, value, units):
        value = bits(value) if value.dtype in (np.float32, np.float64) else value
        before = self.registers.get(name, value)
        self.registers[name] = np.where(units, value, before)

    def address(self, operand):
        name, offset = re.match(r"^\[([^+\]]+?)(?:\+(-?\d+))?\]$", operand).groups()
        return self.get(name).astype(np.int64) + int(offset or 0)

    def places(self, operand, space, units):
        """The memories that an instruction is about, each with its units and where they point."""
        at = self.address(operand)
        assert not (at[units] & 3).any(), "not at a word"
        if space == "shared":
            yield self.shared, units, at[units] >> 2
            return
        for buffer in np.unique(at[units] >> 32):
            memory, those = self.buffers[buffer - 1], units & (at >> 32 == buffer)
            within = (at[those] & 0xFFFFFFFF) >> 2
            assert (within < len(memory)).all(), "outside a buffer"
            yield memory, those, within

    def do(self, name, operands, units):
        what, kind, to, rest = name[0], name[-1], operands[0], operands[1:]
        word = lambda operand: self.get(operand, WORD)
        number = lambda operand: f32(self.get(operand))
        inside = lambda operand: [part.strip() for part in operand[1:-1].split(",")]
        if what == "ld" and name[1] == "param":
            self.put(to, np.full(UNITS, self.kernel.parameters.index(rest[0][1:-1]) + 1 << 32, np.uint64), units)
        elif what == "ld":
            loaded = np.zeros(UNITS, WORD)
            for memory, those, at in self.places(rest[0], name[1], units):
                assert name[1] != "shared" or self.written[at].all(), "shared memory is read before it is written"
                loaded[those] = memory[at]
            self.put(to, loaded, units)
        elif what == "st":
            if rest[0].startswith("{"):
                low, high = map(word, inside(rest[0]))
                value = low & 0xFFFF | high << 16
            else:
                value = word(rest[0])
            for memory, those, at in self.places(to, name[1], units):
                memory[at] = value[those]
                if name[1] == "shared":
                    self.written[at] = True
        elif what == "mov" and rest[0].startswith("{"):
            low, high = map(word, inside(rest[0]))
            self.put(to, low & 0xFFFF | high << 16, units)
        elif what == "mov":
            self.put(to, self.get(rest[0], np.uint64 if kind.endswith("64") else WORD), units)
        elif what == "fma":
            a, b, c = map(number, rest)
            exact = a.astype(float) * b + c
            self.put(to, down(exact) if name[1] == "rm" else exact, units)
        elif what == "mma":
            self.multiply(name[7], inside(to), [list(map(word, inside(operand))) for operand in rest], units)
        elif what == "shfl":
            assert units.all(), "a shuffle by part of a plane"
            self.put(to.split("|")[0], word(rest[0])[EVERY ^ int(rest[1])], units)
        elif what == "activemask":
            self.put(to, np.full(UNITS, 0xFFFFFFFF, WORD), units)
        elif what == "selp":
            self.put(to, np.where(self.registers[rest[2]], self.get(rest[0]), self.get(rest[1])).astype(WORD), units)
        elif what == "setp":
            of = {"f32": number, "s32": lambda operand: word(operand).view(np.int32)}.get(kind, word)
            self.put(to, COMPARE[name[1]](*map(of, rest)), units)
        elif what == "cvt" and name[1] == "sat":
            self.put(to, np.clip(number(rest[0]), 0, 1), units)
        elif what == "cvt" and name[-2].endswith("x2"):
            high, low = (rounded(number(operand), name[-2][:-2]) for operand in rest)
            self.put(to, low | high << 16, units)
        elif what == "cvt" and kind == "f32":
            self.put(to, rounded(number(rest[0]), name[-2]), units)
        elif what == "cvt" and kind == "s32":
            self.put(to, word(rest[0]).view(np.int32).astype(np.float32), units)
        elif what == "cvt":
            self.put(to, word(rest[0]) if name[1] == "u32" else word(rest[0]).astype(np.uint64), units)
        elif what in ("neg", "ex2", "rcp"):
            alone = {"neg": np.negative, "ex2": np.exp2, "rcp": np.reciprocal}[what]
            self.put(to, alone(number(rest[0])), units)
        elif what == "bfe":
            self.put(to, word(rest[0]) >> word(rest[1]) & WORD((1 << int(rest[2])) - 1), units)
        elif what == "mad":
            a, b, c = (self.get(operand, np.uint64 if kind.endswith("64") else WORD) for operand in rest)
            self.put(to, a * b + c, units)
        elif kind in ("u16", "s16") and what != "cvt":
            a, b = (word(operand) & 0xFFFF for operand in rest)
            exact = U32[what](a, b) >> 16 if name[1] == "hi" else U32[what](a, b)
            self.put(to, exact if name[1] == "wide" else exact & 0xFFFF, units)
        elif kind == "pred":
            self.put(to, U32[what](*(self.registers[operand] for operand in rest)), units)
        elif kind == "f32":
            self.put(to, F32[what](*map(number, rest)), units)
        elif kind.endswith("64") or name[1] == "wide":
            self.put(to, U32[what](*map(self.get if kind.endswith("64") else lambda x: word(x).astype(np.uint64), rest)), units)
        else:
            self.put(to, U32[what](*map(word, rest)), units)

    def multiply(self, kind, to, factors, units):
        assert units.all(), "a matmul by part of a plane"
        width = 1 if kind == "tf32" else 2
        plane, g, t = EVERY // 32, EVERY % 32 // 4, EVERY % 4
        left, right = np.zeros((4, 16, 8 * width)), np.zeros((4, 8 * width, 8))
        for register, words in enumerate(factors[0]):
            for i, numbers in enumerate(widened(words, kind)):
                left[plane, g + 8 * (register % 2), width * (t + 4 * (register // 2)) + i] = numbers
        for register, words in enumerate(factors[1]):
            for i, numbers in enumerate(widened(words, kind)):
                right[plane, width * (t + 4 * register) + i, g] = numbers
        product = left @ right
        for register, (name, sums) in enumerate(zip(to, factors[2])):
            self.put(name, product[plane, g + 8 * (register // 2), 2 * t + register % 2] + f32(sums), units)


def turned(x, angles, sign=1):
    half = x.shape[-1] // 2
    cos, sin = angles[..., :half], sign * angles[..., half:]
    return np.concatenate([x[..., :half] * cos - x[..., half:] * sin, x[..., half:] * cos + x[..., :half] * sin], -1)


def compare(folder, name, d, n_queries, n_keys=None, shared=True, labelled=True, causal=False):
    """One case: two rows, two heads of width d, labels of which one query's is nobody else's."""
    rng, (rows, heads) = np.random.default_rng(n_queries), (2, 2)
    cross, n_keys, width = n_keys is not None, n_keys or n_queries, heads * d
    draw = lambda *shape: rng.uniform(-2, 2, shape).astype(np.float32)

    def angles(n, shared):
        table = rng.uniform(0, 6, (1 if shared else rows, n, d // 2))
        return np.concatenate([np.cos(table), np.sin(table)], -1).astype(np.float32)

    def sorted_by(labels):
        order = np.argsort(labels, -1, kind="stable")
        return np.stack([order, np.take_along_axis(labels, order, -1)], 1).astype(np.int32)

    x = draw(rows, n_queries, width if cross else 3 * width)
    kv = draw(rows, n_keys, 2 * width) if cross else x
    first = 0 if cross else width
    q_angles = angles(n_queries, shared)
    k_angles = angles(n_keys, False) if cross else q_angles
    q_labels = rng.integers(0, 3, (rows, n_queries)) * labelled
    q_labels[:, -1] = 7 * labelled
    k_labels = rng.integers(0, 3, (rows, n_keys)) if cross else q_labels
    grad = draw(rows, n_queries, width)

    by_head = lambda x: x.reshape(rows, -1, heads, d).astype(float)
    wide = lambda table: table[:, :, None].astype(float)
    q, k, v = by_head(x[..., :width]), by_head(kv[..., first : first + width]), by_head(kv[..., first + width : first + 2 * width])
    q_turned, k_turned, upstream = turned(q, wide(q_angles)), turned(k, wide(k_angles)), by_head(grad)
    seen = (q_labels[:, :, None] == k_labels[:, None])[:, None]
    if causal:
        seen = seen & (np.arange(n_keys) <= np.arange(n_queries)[:, None])
    alive = seen.any(-1)
    scores = np.where(seen, np.einsum("bqhd,bkhd->bhqk", q_turned, k_turned) / np.sqrt(d), -np.inf)
    lse = np.where(alive, np.log(np.where(alive, np.exp(scores).sum(-1), 1)), 0)
    weights = np.exp(scores - lse[..., None])
    out = np.einsum("bhqk,bkhd->bqhd", weights, v)
    shift = np.einsum("bqhd,bqhd->bhq", out, upstream)
    of_scores = weights * (np.einsum("bqhd,bkhd->bhqk", upstream, v) - shift[..., None])
    of_q = turned(np.einsum("bhqk,bkhd->bqhd", of_scores, k_turned) / np.sqrt(d), wide(q_angles), -1)
    of_k = turned(np.einsum("bhqk,bqhd->bkhd", of_scores, q_turned) / np.sqrt(d), wide(k_angles), -1)
    of_v = np.einsum("bhqk,bqhd->bkhd", weights, upstream)

    words = lambda x: np.ascontiguousarray(x).reshape(-1).view(WORD).copy()
    nothing = lambda n: np.full(n, 0x7FC00000, WORD)
    q_sorted, k_sorted = (words(sorted_by(labels)) if labelled else nothing(2) for labels in (q_labels, k_labels))
    inputs = [words(x), words(kv), words(q_angles), words(k_angles), q_sorted, k_sorted]

    def launch(kernel, buffers, n):
        # One float32 scalar, two u32, then the buffers' lengths.
        info = np.zeros(64, WORD)
        info[0] = bits(np.array([1 / np.sqrt(d)]))[0]
        info[2:4] = n_queries, n_keys
        info[4 : 4 + len(buffers)] = [len(buffer) for buffer in buffers]
        compiled, grid = Kernel(folder / f"{kernel}_{name}.ptx"), ((n + 63) // 64, heads, rows)
        with np.errstate(all="ignore"):
            for place in np.ndindex(grid):
                Cube(compiled, buffers + [info], grid, place).run()

    found_out, found_lse = nothing(out.size), nothing(lse.size)
    launch("forward", inputs + [found_out, found_lse], n_queries)
    statistics = words(np.stack([lse, shift]).astype(np.float32))
    of_x = nothing(x.size)
    of_kv = nothing(kv.size) if cross else of_x
    launch("query_grads", inputs + [statistics, words(grad), of_x], n_queries)
    launch("key_grads", inputs + [statistics, words(grad), of_kv], n_keys)

    of_x, of_kv = (f32(found).reshape(like.shape) for found, like in ((of_x, x), (of_kv, kv)))
    pairs = {
        "output": (f32(found_out), out),
        "log-sum-exp": (f32(found_lse), lse),
        "of queries": (of_x[..., :width], of_q),
        "of keys": (of_kv[..., first : first + width], of_k),
        "of values": (of_kv[..., first + width : first + 2 * width], of_v),
    }
    most = {"bf16": 2e-2, "f16": 3e-3, "tf32": 3e-3}[name.split("_")[1]]
    differences = []
    for what, (found, expected) in pairs.items():
        difference = np.abs(found.reshape(-1) - expected.reshape(-1)).max() / max(1, np.abs(expected).max())
        assert difference < most, (name, what, difference)
        differences.append(f"{what} {difference:.1e}")
    print(f"{name}, {n_queries} x {n_keys}:", ", ".join(differences), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    for n in (5, 70, 131):
        compare(folder, "groups_bf16", 64, n)
    compare(folder, "all_bf16", 64, 131, labelled=False)
    compare(folder, "cross_bf16", 64, 70, 9)
    compare(folder, "cross_bf16", 64, 40, 140)
    compare(folder, "causal_f16", 32, 131, shared=False, labelled=False, causal=True)
    compare(folder, "groups_tf32", 64, 70)
    compare(folder, "groups48_tf32", 48, 70)
    compare(folder, "cross_tf32", 16, 70, 140)
    compare(folder, "causal_tf32", 32, 131, shared=False, labelled=False, causal=True)
