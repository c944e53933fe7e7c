"""The quantizer of `polygraft pack` in the forward pass: adapters trained as the codes that they are shipped as.

Jie et al., "Revisiting the Parameter Efficiency of Adapters from the Perspective of Precision Redundancy" (ICCV 2023).
The modules stay those of `peft` and `adapters`: each trainable matrix becomes a parametrization of a latent one, and what
the module multiplies with is `levels[code] * deviation + mean`. Going back, a code counts as the `u` it was made from
(straight through); mean and deviation are differentiated. The arithmetic is that of crates/polygraft/src/quant/codes.rs,
step by step, so that packing the latent matrices gives the numbers that were trained with.
"""

import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import parametrize


def levels(bits, book="median"):
    """The 2^bits levels for the normal distribution, lowest first, by their fixed point: edges half way between levels,
    a level the median (or, for `least-squares`, the mean) of what falls between its edges."""
    if bits not in (1, 2, 4):
        raise ValueError(f"{bits} bits: 1, 2 or 4 can be trained")
    at = torch.linspace(-1, 1, 2 ** bits, dtype=torch.float64)
    ends = torch.tensor([torch.inf], dtype=torch.float64)
    phi = lambda x: torch.exp(-x * x / 2) / (2 * torch.pi) ** 0.5
    for _ in range(20000):
        edges = torch.cat([-ends, (at[1:] + at[:-1]) / 2, ends])
        below = torch.special.ndtr(edges)
        if book == "median":
            new = torch.special.ndtri((below[1:] + below[:-1]) / 2)
        else:
            new = (phi(edges[:-1]) - phi(edges[1:])) / (below[1:] - below[:-1])
        done = (new - at).abs().max() < 1e-12
        at = new
        if done:
            break
    return at.float()


class Quantizer(nn.Module):
    """A latent matrix -> the one that its codes stand for. `per`: `tensor`, `row`, or numbers a block."""

    def __init__(self, bits, per="tensor", book="median"):
        super().__init__()
        self.per = per
        self.register_buffer("levels", levels(bits, book), persistent=False)
        self.register_buffer("edges", (self.levels[1:] + self.levels[:-1]) / 2, persistent=False)

    def forward(self, latent):
        if self.per == "tensor":
            return self.grouped(latent.reshape(1, -1)).reshape(latent.shape)
        rows = latent.reshape(-1, latent.shape[-1])
        span = rows.shape[1] if self.per == "row" else int(self.per)
        return torch.cat([self.grouped(part) for part in rows.split(span, 1)], 1).reshape(latent.shape)

    def grouped(self, x):
        """Each row of `x` is a group."""
        wide = x.double()  # as pack sums
        mean = wide.mean(1, keepdim=True)
        variance = (wide - mean).square().sum(1, keepdim=True) / max(x.shape[1] - 1, 1)
        # Where all numbers are alike the root has no slope.
        deviation = variance.clamp_min(1e-30).sqrt().float()
        mean = mean.float()
        u = (x - mean) / (deviation + 1e-5)
        code = torch.bucketize(u.detach(), self.edges)
        return (self.levels[code] + (u - u.detach())) * deviation + mean


def matrices(model):
    """(module, parameter's name) of every trainable matrix."""
    return [(module, name) for module in model.modules() for name, p in module.named_parameters(recurse=False)
            if p.requires_grad and sum(n > 1 for n in p.shape) >= 2]


class Twin:
    """A model whose trainable matrices are quantized in the forward pass; 32 bits leaves it as it is."""

    def __init__(self, model, bits, per="tensor", book="median"):
        self.model, self.options = model, (bits, per, book)
        self.places = matrices(model) if bits < 32 else []
        self.attach()

    def attach(self):
        for module, name in self.places:
            parametrize.register_parametrization(module, name, Quantizer(*self.options))

    def detach(self):
        for module, name in self.places:
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)

    @contextmanager
    def latent(self):
        """The model with the matrices that are trained: what the libraries save, and what `pack` reads."""
        self.detach()
        try:
            yield self.model
        finally:
            self.attach()

    def values(self):
        """What the forward pass multiplies with, matrix by matrix."""
        return [getattr(module, name).detach().clone() for module, name in self.places]


def pack(polygraft, folder: Path, out: Path, base, bits, per="tensor", book="median"):
    """`polygraft pack` with the training's quantizer."""
    subprocess.run([str(polygraft), "pack", str(folder), str(out), "--base", str(base), "--bits", str(bits),
                    "--per", str(per), "--levels", book, "--force"], check=True)


def unpack(polygraft, packed: Path, out: Path):
    """The folder of the numbers that the codes stand for, as `peft` or `adapters` loads it."""
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([str(polygraft), "unpack", str(packed), str(out)], check=True)
