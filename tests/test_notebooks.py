"""The scripts in a notebook's kernel: cell by cell, and by %run."""

import re
import shutil

import nbclient
import nbformat
import pytest
from course import SOLUTIONS

DRY_RUN = 'sys.argv = ["script", "--dry-run"]'
TINY = 'BUDGETS["cpu"].update(epochs=1, train_images=32, test_images=20)'


def execute(cells, folder):
    """Run cells one after another in a fresh kernel; returns what they printed."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    client = nbclient.NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs)


def cells_of(path):
    """The cells that VS Code, Spyder, PyCharm and Jupyter see in a script."""
    return re.split(r"^(?=# %%)", path.read_text("utf-8"), flags=re.MULTILINE)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", SOLUTIONS.values(), ids=lambda path: path.stem)
def test_the_cells_run_one_after_another(path, tmp_path):
    *cells, last = cells_of(path)
    assert len(cells) == 4, "imports, your part, the experiment, given"
    printed = execute([*cells, DRY_RUN, last], tmp_path)
    stem = path.stem[: len("exercise_01")]
    assert "This was a dry run" in printed
    assert (tmp_path / "results" / "dry_run" / f"{stem}.json").exists()
    assert (tmp_path / "results" / "dry_run" / f"{stem}.png").exists()


@pytest.mark.timeout(240)
def test_the_kernels_own_arguments_are_not_the_scripts(tmp_path):
    *cells, last = cells_of(SOLUTIONS["1"])
    execute([*cells, TINY, last], tmp_path)
    assert (tmp_path / "results" / "exercise_01.json").exists()


@pytest.mark.timeout(240)
def test_run_obeys_its_flags(tmp_path):
    script = SOLUTIONS["1"]
    shutil.copy(script, tmp_path)
    printed = execute([f"%run {script.name} --dry-run --out elsewhere"], tmp_path)
    assert "This was a dry run" in printed
    assert (tmp_path / "elsewhere" / "dry_run" / "exercise_01.json").exists()
    assert not (tmp_path / "results").exists()
