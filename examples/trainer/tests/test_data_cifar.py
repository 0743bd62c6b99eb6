"""Wrong files of CIFAR-10's binary version."""

from pathlib import Path

import pytest

from examples.trainer import data
from examples.trainer.tests.data_files import cifar_files, put

GOOD = cifar_files()
THIRD = GOOD["data_batch_3.bin"]

# kind → (the files that are changed, what the message must name and say)
WRONG: dict[str, tuple[dict[str, bytes | None], str]] = {
    "a batch missing": ({"data_batch_3.bin": None}, "/data_batch_3.bin': No such file or directory"),
    "no test batch": ({"test_batch.bin": None}, "/test_batch.bin': No such file or directory"),
    "cut short": ({"data_batch_3.bin": THIRD[:-1]}, "/data_batch_3.bin' has 6145 bytes; one or more records of 3073"),
    "trailing bytes": ({"test_batch.bin": THIRD + b"0"}, "/test_batch.bin' has 6147 bytes; one or more records"),
    "empty": ({"data_batch_5.bin": b""}, "/data_batch_5.bin' has 0 bytes; one or more records"),
    "CIFAR-100": ({"data_batch_1.bin": bytes(3074 * 5)}, "/data_batch_1.bin' has 15370 bytes"),
    "a label too large": (
        {"data_batch_3.bin": THIRD[:3073] + b"\x0a" + THIRD[3074:]},
        "/data_batch_3.bin' holds the label 10; CIFAR-10's are from 0 to 9",
    ),
    "a label too large to be tested": (
        {"test_batch.bin": b"\xff" + THIRD[1:]},
        "/test_batch.bin' holds the label 255; CIFAR-10's are from 0 to 9",
    ),
    "one class": (
        dict.fromkeys(GOOD, bytes(3073)),
        ": every label in the batches is 0; at least two classes are wanted",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_gets_one_line(tmp_path: Path, kind: str) -> None:
    changes, message = WRONG[kind]
    put(tmp_path, {name: content for name, content in (GOOD | changes).items() if content is not None})
    with pytest.raises(data.DataError) as caught:
        data.load_cifar10(tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"'{tmp_path}")
    assert len(str(caught.value).splitlines()) == 1
