"""nDCG@10 of several adapters on every collection, by `polygraft eval`: what runs is what ships.

Each row of the table is a set-up, and the seeds that it was trained with: the mean, and the seeds' spread (smallest to
largest). A file that `pack` made stands where a folder can. Results are kept by the adapter's bytes, so that a run can go on.

    python training/compare.py --adapter base= --adapter "32 bits=runs/f32-s7,runs/f32-s11" --adapter "1 bit=runs/b1-s7/packed.safetensors"
"""

import argparse
import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def digest(path):
    """Of what is run: the packed file, or the folder's weights."""
    file = path if path.is_file() else next(p for n in ("adapter_model.safetensors", "adapter.safetensors") if (p := path / n).is_file())
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def evaluate(adapter, folder, options):
    """nDCG@10 in percent."""
    kept = options.cache / f"{digest(adapter) if adapter else 'base'}-{folder.parent.name}-{folder.name}.json"
    if not kept.is_file():
        command = [str(options.polygraft), "eval", "--base", str(options.base), "--collection", str(folder), "--json"]
        command += ["--adapter", f"a={adapter}", "--compose", "a"] if adapter else ["--compose", "base"]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(result)
    return 100 * json.loads(kept.read_bytes())["ndcg@10"]


def cell(values):
    """Mean of the seeds, their spread behind it."""
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f}–{max(values):.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--adapter", action="append", required=True, metavar="NAME=PATH,…", help="the seeds of a set-up; nothing: the base")
    parser.add_argument("--collections", type=Path, default=ROOT / "tests" / "collections")
    parser.add_argument("--only", help="collections, with commas between them")
    parser.add_argument("--polygraft", type=Path, default=ROOT / "target" / "release" / "polygraft")
    parser.add_argument("--base", type=Path, default=ROOT / "models" / "multilingual-e5-small")
    parser.add_argument("--cache", type=Path, default=Path("/work/tmp/cache/compare"))
    options = parser.parse_args()
    folders = sorted(p.parent for p in options.collections.glob("*/corpus.jsonl"))
    if options.only:
        folders = [f for f in folders if f.name in options.only.split(",")]
    setups = {}
    for spec in options.adapter:
        name, _, paths = spec.rpartition("=")
        setups[name] = [Path(p) for p in paths.split(",") if p] or [None]
    print("| collection | " + " | ".join(setups) + " |\n|---|" + "--:|" * len(setups))
    table = {name: [] for name in setups}
    for folder in folders:
        for name, adapters in setups.items():
            table[name].append([evaluate(a, folder, options) for a in adapters])
        print(f"| {folder.name} | " + " | ".join(cell(table[name][-1]) for name in setups) + " |", flush=True)
    # The mean over collections of each seed, then over the seeds.
    print("| mean | " + " | ".join(cell(list(np.mean(table[name], axis=0))) for name in setups) + " |")


if __name__ == "__main__":
    main()
