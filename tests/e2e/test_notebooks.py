"""The example notebooks run from the first cell to the last, in a real kernel (with its event loop)."""

import json
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")
pytest.importorskip("pandas", reason="pandas is not installed")

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"


def executed(name: str, folder: Path) -> str:
    """All that the cells printed or showed."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    return "".join(output.get("text") or json.dumps(output.get("data")) for output in outputs)


@pytest.mark.filterwarnings("default")  # those of the kernel's client, which are no concern of Charter's
def test_look_into_a_run(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("CHARTER_RUN", str(whole))
    shown = executed("look-into-a-run.ipynb", tmp_path)
    assert "P(A is better) = " in shown and "stays with the position" in shown and "rl-cai" in shown


@pytest.mark.filterwarnings("default")
def test_label_and_revise(tmp_path):
    shown = executed("label-and-revise.ipynb", tmp_path)
    assert "did you mean 'votes'" in shown
    assert "</table>" in shown


def test_notebooks_are_committed_without_outputs():
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        assert all(not cell.get("outputs") for cell in cells if cell["cell_type"] == "code"), path
