"""Makes `trained/`: what training/quantize.py multiplies with, beside the matrices behind it.

    python tests/golden/trained.py

A few steps train a LoRA of peft with the quantizer in its forward pass. `latent/` is its folder; `values.safetensors` has, for
each of the quantizer's options, the numbers of each matrix in the forward pass, `BITS/PER/LEVELS/NAME`. `polygraft pack` must
make the same of the folder, bit for bit: then the packed file is what was trained.
"""

import itertools
import sys

import torch
from make import ROOT, fresh, generator, load_base, make_rows, normal
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

sys.path.insert(0, str(ROOT.parent.parent / "training"))
from quantize import Quantizer, Twin  # noqa: E402

OPTIONS = list(itertools.product((1, 2, 4), ("tensor", "row", "32"), ("median", "least-squares")))


def main():
    torch.manual_seed(7)
    torch.set_grad_enabled(True)
    model = get_peft_model(load_base("bert"), LoraConfig(r=3, lora_alpha=6, target_modules=["query", "output.dense"]))
    g = generator("trained")
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data = normal(g, p.shape, 0.02)
    twin = Twin(model, 1)
    before = [getattr(m.parametrizations, n).original.detach().clone() for m, n in twin.places]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    rows = [torch.tensor([row]) for row in make_rows("trained", "bert")]
    wanted = [normal(g, (1, 32), 1.0) for _ in rows]
    losses = []
    for _ in range(20):
        loss = sum((model(row).last_hidden_state.mean(1) - w).square().mean() for row, w in zip(rows, wanted))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # It learns, and codes change sides: the gradient comes through.
    after = [getattr(m.parametrizations, n).original.detach() for m, n in twin.places]
    assert losses[-1] < 0.9 * losses[0], losses
    assert all(((a - a.mean()).sign() != (b - b.mean()).sign()).any() for a, b in zip(before, after))

    folder = fresh(ROOT / "trained")
    with twin.latent():
        model.save_pretrained(folder / "latent")
        latent = {n.replace(".default", ""): p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    (folder / "latent" / "README.md").unlink()
    config = folder / "latent" / "adapter_config.json"
    config.write_text(config.read_text().replace(str(ROOT), "golden") + "\n")
    values = {f"{bits}/{per}/{book}/{name}": Quantizer(bits, per, book)(w).contiguous()
              for (bits, per, book), (name, w) in itertools.product(OPTIONS, sorted(latent.items()))}
    trained = dict(zip(sorted(latent), (v for _, v in sorted(zip(latent, twin.values())))))
    for name, value in trained.items():
        assert torch.equal(values[f"1/tensor/median/{name}"], value), name
    save_file(values, folder / "values.safetensors")
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)


if __name__ == "__main__":
    main()
