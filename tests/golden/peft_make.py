"""Makes the golden fixtures of the PEFT families: see README.md.

    python tests/golden/peft_make.py [family…]      (no family: all of them)

The families are in peft_families/, a function each; make.py makes the bases first. Every case seeds itself by its name.
"""

import shutil
import sys

import make
import peft_families
from peft_machine import Machine


def main():
    families = peft_families.FAMILIES
    there = [name for name in families if not name.startswith("on_") or any((make.ROOT / f / name[3:]).exists() for f in ("bases", "bases-pixels"))]
    wanted = sys.argv[1:] or there
    for name in wanted:
        if name not in families:
            sys.exit(f"no family {name!r}; there are {', '.join(families)}")
    machine = Machine(make.ROOT / "peft", make.BASES)
    for name in wanted:
        shutil.rmtree(machine.root / name, ignore_errors=True)
        families[name](machine)
        print("made", name, flush=True)
    make.report()


if __name__ == "__main__":
    main()
