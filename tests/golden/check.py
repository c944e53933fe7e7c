"""Runs a polygraft binary over folders of cases and says how far off it is, by family.

    python tests/golden/check.py BINARY FOLDER [--backends reference,cpu,gpu] [--pending] [--quiet]

A case is a folder with `request.json` and `expected.safetensors` or `error.txt`, as everywhere here. The last lines are a
family each: cases, those that fail, the largest difference by backend. `--pending` prints what pending.txt would have to
hold: what fails, a path a line, a whole family as one, after the backend's name if it is not all of them. The exit status is 1 when anything fails.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy
from safetensors.numpy import load_file

ALLOWED = {"reference": 2e-4, "cpu": 5e-4, "gpu": 5e-4}


def run(binary, case, backend, out):
    """(largest difference or None, what is wrong or None)."""
    out.unlink(missing_ok=True)
    done = subprocess.run([binary, "forward", "--backend", backend, "--precision", "exact", "--request", case / "request.json", "--output", out],
                          capture_output=True, text=True, errors="replace")
    said = done.stderr.strip()[-300:]
    if (case / "error.txt").exists():
        wanted = (case / "error.txt").read_text().strip()
        right = done.returncode == 1 and wanted in done.stderr and not out.exists()
        return None, None if right else f"status {done.returncode}, wanted {wanted!r} in: {said}"
    if done.returncode != 0:
        return None, f"status {done.returncode}: {said}"
    got, want = load_file(out), load_file(case / "expected.safetensors")
    if sorted(got) != sorted(want):
        return None, f"outputs {sorted(got)}, wanted {sorted(want)}"
    worst = 0.0
    for name, values in want.items():
        if got[name].shape != values.shape:
            return None, f"{name}: shape {got[name].shape}, wanted {values.shape}"
        off = float(numpy.abs(got[name] - values).max(initial=0.0))
        if not off <= ALLOWED[backend]:
            return off, f"{name}: off by {off:.2e}, of at most {numpy.abs(values).max():.2f}"
        worst = max(worst, off)
    return worst, None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backends", default="reference,cpu,gpu")
    parser.add_argument("--pending", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    backends = args.backends.split(",")
    cases = sorted(p.parent for p in args.folder.rglob("request.json"))
    table = defaultdict(lambda: {"cases": 0, "failed": set(), "on": defaultdict(set), **{b: 0.0 for b in backends}})
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases:
            name = str(case.relative_to(args.folder))
            row = table[str(case.parent.relative_to(args.folder))]
            row["cases"] += 1
            for backend in backends:
                off, wrong = run(args.binary.resolve(), case, backend, Path(scratch) / "out.safetensors")
                if wrong is None:
                    row[backend] = max(row[backend], off or 0.0)
                    continue
                row["failed"].add(name)
                row["on"][name].add(backend)
                if not args.quiet:
                    print(f"{backend} {name}: {wrong}", flush=True)
    failed = sorted(name for row in table.values() for name in row["failed"])
    if args.pending:
        for family, row in sorted(table.items()):
            everywhere = {name for name, on in row["on"].items() if len(on) == len(backends)}
            lines = [f"{args.folder.name}/{name}" for name in ([family] if len(everywhere) == row["cases"] else sorted(everywhere))]
            lines += [f"{b}:{args.folder.name}/{name}" for name, on in sorted(row["on"].items()) if name not in everywhere for b in sorted(on)]
            for line in lines:
                print(line)
    for family, row in sorted(table.items()):
        worst = "  ".join(f"{b} {row[b]:.1e}" for b in backends)
        print(f"{family:32} {row['cases']:3} cases  {len(row['failed']):3} failed  {worst}")
    print(f"{len(cases)} cases, {len(failed)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
