"""Executes the notebooks of this folder in a kernel of this environment, and removes what readers do not need."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from traitlets.config import Config

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
SECONDS = 600  # for a cell


class KernelOfThisEnvironment(AsyncKernelManager):
    """Starts ipykernel with this Python. A kernel of the same name may be registered for another Python."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def paths() -> list[Path]:
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def execute(notebook: nbformat.NotebookNode, environment: dict[str, str] | None = None) -> None:
    """Runs all cells in place. Raises `nbclient.exceptions.CellExecutionError` at the first cell that raises.

    Args:
        notebook: The notebook, whose outputs are replaced.
        environment: The environment variables of the kernel; ``None`` for those of this process.
    """
    with tempfile.TemporaryDirectory() as settings:  # neither the user's startup files nor their history
        sockets = {"transport": "ipc", "ip": os.path.join(settings, "socket")}  # files, which no one else can read
        client = NotebookClient(
            notebook,
            config=Config(KernelOfThisEnvironment=sockets),
            kernel_manager_class=KernelOfThisEnvironment,
            timeout=SECONDS,
            record_timing=False,
            coalesce_streams=True,  # and lines that were written over, such as the checker's progress
            resources={"metadata": {"path": str(FOLDER)}},
        )
        environment = dict(os.environ if environment is None else environment)
        modules = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))  # this checkout's jaxbn
        client.execute(env=environment | {"IPYTHONDIR": settings, "PYTHONPATH": modules})


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Removes metadata that depend on the computer, and outputs that show nothing."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("text", "something").strip()]


def printed(notebook: nbformat.NotebookNode) -> str:
    """Returns the standard output of all cells."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    """Returns the PNG pictures, in base 64."""
    data = (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))
    return [each["image/png"] for each in data if "image/png" in each]
