"""The options that are refused, and what the help says of those that there are."""

import argparse
import re

import pytest

from examples.trainer.options import make_parser


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    return make_parser()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--epochs", "0"),
        ("--epochs", "1.5"),
        ("--batch-size", "0"),
        ("--batch-size", "many"),
        ("--learning-rate", "0"),
        ("--learning-rate", "-0.1"),
        ("--learning-rate", "nan"),
        ("--learning-rate", "inf"),
        ("--features", "0"),
        ("--features", ""),
        ("--ensemble", "0"),
        ("--seed", "-1"),
        ("--seed", "1073741825"),
        ("--shift", "-1"),
        ("--crop", "0"),
        ("--crop", "1.5"),
        ("--crop", "nan"),
        ("--patience", "-1"),
        ("--save-every", "0"),
        ("--devices", "0"),
        ("--process-count", "0"),
        ("--process-id", "-1"),
        ("--speed", "1"),
    ],
)
def test_an_option_that_makes_no_sense(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as left:
        parser.parse_args([option, value])
    assert left.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert option in last
    assert repr(value) in last or option == "--speed"


def test_help_explains_every_option_and_its_default(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parser.parse_args(["--help"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    options = {
        "--data": "scikit-learn's handwritten digits",
        "--epochs": "20",
        "--batch-size": "32",
        "--learning-rate": "0.01",
        "--features": "32 64 128",
        "--ensemble": "1",
        "--seed": "0",
        "--output": "runs/trainer",
        "--shift": "0",
        "--crop": "1",
        "--patience": "10",
        "--checkpoint": "none are kept",
        "--save-every": "only then",
        "--tensorboard": "none",
        "--profile": "none",
        "--devices": "one of each process",
        "--local-batch-norm": "by the statistics of the whole batch",
        "--coordinator": "there is one process",
        "--process-count": "1",
        "--process-id": "0",
    }
    for option, default in options.items():
        assert re.search(rf" {option} [^-]*\w+.*?\(default: {re.escape(default)}\)", shown)
    assert set(re.findall(r"(?<=\s)--[a-z-]+", shown)) == {*options, "--flip", "--help"}
    defaults = vars(parser.parse_args([]))
    assert " ".join(map(str, defaults["features"])) == options["--features"]
    assert defaults["ensemble"] == 1
