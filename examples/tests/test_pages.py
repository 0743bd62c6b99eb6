"""The Python on the site's pages runs."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.compiled import environment_without_effort

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")}
EXAMPLES = ("getting-started", "coming-from", "slow-convolutions", "training", "memory", "checker")


def test_examples_run() -> None:
    """Each page's Python in a namespace of its own, all in one process."""
    blocks = {page: re.findall(r"^```python\n(.*?)^```", PAGES[page], re.M | re.S) for page in EXAMPLES}
    assert all(blocks.values())
    assert not [page for page, text in PAGES.items() if page not in EXAMPLES and "```python\n" in text]
    programs = {page: "\n".join(code) for page, code in blocks.items()}
    run = f"for page, code in {programs!r}.items(): exec(compile(code, page, 'exec'), {{}}); jaxbn.unpatch_jax()"
    env = environment_without_effort() | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-c", f"import jaxbn\n{run}"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2 layers compute by jaxbn: layers.0, layers.1" in done.stdout
    (accuracy,) = re.findall(r"^test accuracy: (.*)%$", done.stdout, re.MULTILINE)
    assert float(accuracy) >= 97
