"""A sample of the mutated files; `python -m examples.trainer.tests.mutated_files` has them all."""

import pytest

from examples.trainer.tests import mutated_files


def test_mutated_files_are_read_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutated_files.main(["--count", "180", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("180 mutated files: ")
