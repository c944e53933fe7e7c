"""Makes the golden fixtures of AdapterHub's methods, `hub/<family>/<case>/`: see README.md and hub.py.

    python tests/golden/hub_families.py [family…]      (no family: all of them)

Made with adapters 1.3.0 on the bases of make.py. Every case seeds itself by its name.
"""

import sys

import hub_bases, hub_combined, hub_compose, hub_files, hub_methods  # noqa: E401, F401  (each adds its families)
import make
from hub_case import FAMILIES, HUB
from make import fresh


def main():
    there = [n for n in FAMILIES if n not in hub_bases.BASES or make.base_at(n).exists()]
    wanted = sys.argv[1:] or there
    for name in wanted:
        if name not in FAMILIES:
            sys.exit(f"no family {name!r}; there are {', '.join(FAMILIES)}")
    for name in wanted:
        fresh(HUB / name)
        FAMILIES[name]()
        print("made", name, flush=True)
    size = sum(f.stat().st_size for f in HUB.rglob("*") if f.is_file())
    print(f"{size / 2**20:.2f} MiB, {len(list(HUB.rglob('request.json')))} requests")
    assert size < 20 * 2**20


if __name__ == "__main__":
    main()
