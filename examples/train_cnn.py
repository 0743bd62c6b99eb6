"""Train a small convolutional network on images: handwritten digits, or your own.

    python examples/train_cnn.py

This is the trainer's command, which `examples/trainer/README.md` describes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.trainer.train import main

if __name__ == "__main__":
    main(["--output", "runs/train_cnn", *sys.argv[1:]])
