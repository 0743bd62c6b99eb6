"""Executes the notebooks and writes them again with their outputs.

    python -m examples.notebooks [--only derive]

Needs the extra: python -m pip install -e ".[tests]"
"""

import argparse
import time

import nbformat

from examples.notebooks import execute, paths, read, tidy


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.notebooks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="only the notebooks whose name contains it")
    only = parser.parse_args().only
    for path in paths():
        if only in path.name:
            start, notebook = time.monotonic(), read(path)
            execute(notebook)
            tidy(notebook)
            nbformat.write(notebook, path)
            print(f"{path.name}: {time.monotonic() - start:.0f} s, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
