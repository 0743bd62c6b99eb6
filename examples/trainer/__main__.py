"""The command ``python -m examples.trainer``."""

from .train import main

main()
