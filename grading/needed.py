"""What the grader needs. Imported before its other parts, it names what is missing, and stops."""

import sys
from importlib.util import find_spec

PACKAGES = ("torch", "torchvision", "matplotlib", "numpy", "tqdm", "pytest")

if sys.version_info < (3, 10):
    sys.exit(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}")
for name in PACKAGES:
    if find_spec(name) is None:
        sys.exit(f"This Python has no {name}: install it, or activate the environment that has it")
