"""The command ``python -m docs.explorer``, which writes the page of the deck's sums."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from docs.explorer import page


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m docs.explorer", description="Write the page of the deck's sums.")
    parser.add_argument("--output", type=Path, default=Path("docs/explorer.html"), help="default: %(default)s")
    output = parser.parse_args(arguments).output
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page(), encoding="utf-8", newline="\n")
    except OSError as error:
        parser.exit(2, f"python -m docs.explorer: --output {str(output)!r}: {error.strerror}\n")
    print(f"the deck's sums: {output}")


if __name__ == "__main__":
    main()
