"""Prints the constants that the tests in crates/polygraft-formats/src/maths/ compare with: `python maths.py torch`.

Long tensors are stood for by their first numbers and the 64-bit FNV-1a hash of their bytes.
"""

import sys

import numpy as np
import torch


def show(name, tensor, n=4):
    array = np.ascontiguousarray(tensor.numpy() if isinstance(tensor, torch.Tensor) else tensor)
    h = 0xCBF29CE484222325
    for byte in array.tobytes():
        h = ((h ^ byte) * 0x100000001B3) & (2**64 - 1)
    print(f"{name}: {array.reshape(-1)[:n].tolist()} {h:#018x}")


def from_torch():
    g = torch.Generator().manual_seed((5 << 32) + 3)
    show("uniform", torch.empty(5000).uniform_(-0.3, 0.7, generator=g))
    show("uniform, short", torch.empty(5).uniform_(-0.07654, 0.07654, generator=g))
    show("uniform64", torch.empty(1001, dtype=torch.float64).uniform_(-0.3, 0.7, generator=g))
    show("uniform_bf16", torch.empty(3001, dtype=torch.bfloat16).uniform_(-0.3, 0.7, generator=g).float())
    show("permutation", torch.randperm(3000, generator=g))
    show("permutation, 777", torch.randperm(147456, generator=torch.Generator().manual_seed(777)))
    show("integers", torch.randint(0, 1000, (500,), generator=g).to(torch.int32))
    for n in (5, 3, 16, 37):
        show(f"normal {n}", torch.empty(n).normal_(0.5, 2.0, generator=g), n)
    show("then", torch.rand(1, generator=g))


def from_numpy():
    g = np.random.default_rng(42)
    print("bits64:", g.bit_generator.random_raw(2).tolist())
    for seed in (0, (7 << 32) + 5):
        print("seed", seed, np.random.default_rng(seed).bit_generator.random_raw(1).tolist())
    show("choice", g.choice(256, size=10, replace=False), 10)
    items = np.arange(5000)
    g.shuffle(items)
    show("shuffle", items)
    show("choice, few of many", g.choice(20000, size=300, replace=False))
    show("choice, most of many", g.choice(20000, size=15000, replace=False))
    show("choice, all", g.choice(300, size=300, replace=False))
    print("bits32:", g.integers(0, 2**32, dtype=np.uint32))
    print("up_to:", [int(g.integers(0, most, endpoint=True, dtype=np.uint64)) for most in (2**32 - 1, 2**40, 2**64 - 1)])
    print("then:", g.bit_generator.random_raw(1).tolist())


def from_wavelet():
    """What peft.tuners.waveft makes of coefficients 1, 2, 3, … at its own places."""
    from peft.tuners.waveft.layer import WaveFTLayer

    for name, rows, cols in [("db1", 6, 4), ("db3", 7, 9), ("sym8", 10, 5), ("sym2", 5, 8), ("coif4", 9, 12), ("db10", 30, 41)]:
        layer = WaveFTLayer(torch.nn.Linear(cols, rows))
        n = rows * cols
        places = torch.randperm(n, generator=torch.Generator().manual_seed(1))[: n // 2]
        layer.waveft_indices["a"] = torch.stack([places // cols, places % cols])
        layer.waveft_spectrum["a"] = torch.nn.Parameter(torch.arange(1.0, n // 2 + 1) / n)
        layer.waveft_wavelet_family["a"], layer.waveft_use_idwt["a"], layer.waveft_scaling["a"] = name, True, 1.0
        delta = layer.get_delta_weight("a").detach()
        print(name, list(delta.shape), [delta[i].item() for i in ((0, 0), (0, cols - 1), (rows // 2, cols // 2), (rows - 1, 1))])
        print("  ", (delta.double() ** 2).sum().item())


def from_top_k():
    for n, kinds, count, largest in TOP_K:
        scores = torch.randint(0, kinds, (n,), generator=torch.Generator().manual_seed(4)).float()
        show(f"({n}, {kinds}, {count}, {str(largest).lower()}", torch.topk(scores, count, largest=largest)[1])


TOP_K = [(10, 2, 4, True), (10, 2, 10, False), (100, 5, 1, True), (1000, 7, 15, False), (1000, 7, 16, True), (1000, 3, 500, True), (1000, 1, 40, True),
         (5000, 40, 78, True), (5000, 40, 79, False), (5000, 2, 4000, False), (5000, 300, 5000, True), (40000, 3, 600, True), (40000, 9, 30000, False)]


def from_linalg():
    def random(seed, rows, cols):
        g = torch.Generator().manual_seed(seed)
        return torch.empty(rows, cols, dtype=torch.float64).uniform_(-1, 1, generator=g).numpy()

    def rank(a, r):
        u, s, v = np.linalg.svd(a, full_matrices=False)
        return (u[:, :r] * s[:r]) @ v[:r]

    def table(name, values):
        numbers = ", ".join(repr(float(x)) for x in np.asarray(values).reshape(-1))
        print(f"const {name}: &[f64] = &[{numbers}];")

    q, r = np.linalg.qr(random(3, 7, 5))
    table("Q_TALL", q[0])
    table("R_TALL", r)
    q, r = np.linalg.qr(random(3, 4, 6))
    table("Q_WIDE", q)
    table("R_WIDE", r[3])
    table("SOLVED", np.linalg.solve(random(5, 4, 4), random(6, 4, 2)))
    table("INVERSE", np.linalg.inv(random(5, 4, 4))[0])
    table("ALREADY", np.linalg.qr(np.array([[3.0, 1], [0, -2], [0, 0]]))[1])
    u = random(9, 3, 10)
    u[0] /= np.linalg.norm(u[0])
    u[1] -= (u[0] @ u[1]) * u[0]
    table("GRAM_SCHMIDT", u[1] / np.linalg.norm(u[1]))
    table("SINGULAR", np.linalg.svd(random(3, 7, 5))[1])
    table("RANK_TWO", rank(random(3, 7, 5), 2)[0, :4])
    table("RANK_FOUR", rank(random(3, 7, 5), 4)[0, :4])
    table("WIDE", rank(random(3, 5, 7), 1)[0, :4])
    table("LONG", np.linalg.svd(random(3, 60, 40))[1][[0, 20, 39]])
    table("LONG_THREE", rank(random(3, 60, 40), 3)[0, :4])


if __name__ == "__main__":
    {"torch": from_torch, "numpy": from_numpy, "wavelet": from_wavelet, "top_k": from_top_k, "linalg": from_linalg}[sys.argv[1]]()
