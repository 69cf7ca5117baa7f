"""Licences of everything that is built into a program, from `cargo metadata` on stdin.

A dependency that only another platform takes is in the metadata as well; its licence has to
be acceptable all the same.
"""

import json
import re
import sys

ACCEPTED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause",
    "BSL-1.0", "CC0-1.0", "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "MPL-2.0",
    "Unicode-3.0", "Unlicense", "Zlib",
}
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def acceptable(expression: str) -> bool:
    """Whether an SPDX expression leaves a choice of accepted licences."""
    expression = expression.replace("/", " OR ")
    tokens = re.findall(r"\(|\)|[^()\s]+(?:\s+WITH\s+[^()\s]+)?", expression)
    python = []
    for token in tokens:
        if token in ("(", ")"):
            python.append(token)
        elif token in ("AND", "OR"):
            python.append(token.lower())
        else:
            python.append(str(re.sub(r"\s+", " ", token) in ACCEPTED))
    return bool(eval(" ".join(python), {"__builtins__": {}}))  # only True, False, and, or, ()


def main() -> int:
    packages = json.load(sys.stdin)["packages"]
    faults = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["source"] not in (None, REGISTRY):
            faults.append(f"{name}: source {package['source']}")
        if not package.get("license"):
            faults.append(f"{name}: no licence")
        elif not acceptable(package["license"]):
            faults.append(f"{name}: licence {package['license']}")
    for fault in faults:
        print(f"integration/arrows: {fault}", file=sys.stderr)
    print(f"{len(packages)} packages, one provider, every arrow as drawn")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
