"""Answers the requests of `benchmarks.pytorch.Process`, from standard input to standard output."""

import json
import sys

from benchmarks.pytorch import programs
from benchmarks.timing import Effort, Run, medians


def main() -> None:
    program: Run | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "time" in request:
            assert program is not None
            answer = medians([program], Effort(*request["time"]))[0]
        else:
            program = None  # its memory is free before the next program is made
            answer = getattr(programs, request["call"])(*request["arguments"])
            if callable(answer):
                program, answer = answer, None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
