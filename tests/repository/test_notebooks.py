"""The notebooks of examples/ run in a kernel; one is interrupted on the way and goes on."""

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="the extra notebook is not installed")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

FOLDER = Path(__file__).parent.parent.parent / "examples" / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
# Numbers that readers see, and those of the tests.
BUDGETS = {
    "TIMESTEPS = 60_000": "TIMESTEPS = 2_048",
    "TIMESTEPS = 20_000": "TIMESTEPS = 1_000",
    "episodes=20": "episodes=2",
}
MOST_BYTES = 400_000


def read(name: str, budgets: dict[str, str]):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        for long, short in budgets.items():
            cell.source = cell.source.replace(long, short)
    return notebook


def shown(notebook) -> list[str]:
    """Sources of the cells, and outputs of both kinds as text."""
    return [json.dumps(cell.get("outputs", [])) for cell in notebook.cells]


def client_of(notebook, directory: Path, **options):
    resources = {"metadata": {"path": str(directory)}}
    return nbclient.NotebookClient(notebook, timeout=500, resources=resources, **options)


def test_they_are_the_four_and_small():
    assert NOTEBOOKS == ["export_and_serve", "looking_into_a_run", "quickstart", "your_own_loss"]
    for name in NOTEBOOKS:
        path = FOLDER / f"{name}.ipynb"
        assert path.stat().st_size < MOST_BYTES, name
        cells = nbformat.read(path, as_version=4).cells
        assert len(cells) <= 20, name
        assert any(long in cell.source for cell in cells for long in BUDGETS), name


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_their_outputs_are_stored_and_no_cell_has_failed(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds and "error" not in kinds
    assert code[0].source == "import pgest" and code[0].outputs == []
    stored = json.dumps([cell.outputs for cell in code])
    # Readers have other machines: no directory, no place in memory, no line of a driver.
    for foreign in ("/tmp/", "/home/", "/root/", " at 0x", "INFO:", '"stderr"'):
        assert foreign not in stored, foreign


def test_the_page_of_a_notebook_has_its_outputs(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER.parent.parent / "docs" / "building")
    import notebooks

    notebook = json.loads((FOLDER / "looking_into_a_run.ipynb").read_text(encoding="utf-8"))
    page = notebooks.markdown(notebook, "looking_into_a_run")
    assert page.startswith("# Looking into a run\n\nCurves, ")
    assert "This page is `examples/notebooks/looking_into_a_run.ipynb`." in page
    assert page.count('src="data:image/png;base64,') == 3
    assert page.count('src="data:video/mp4;base64,') == 1 and "<table" in page
    for block in page.split('<div class="output">')[1:]:
        assert "\n\n" not in block.partition("</div>\n")[0], "Markdown would begin again"


def test_the_gallery_shows_each_notebook_and_what_it_draws_last(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER.parent.parent / "docs" / "building")
    import notebooks

    gallery = (FOLDER.parent.parent / "docs" / "notebooks" / "index.md").read_text(encoding="utf-8")
    for name in NOTEBOOKS:
        notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
        picture = notebooks.picture(notebook)
        assert (picture is None) == (name == "export_and_serve")  # which draws nothing
        kind = "svg" if picture is None else "png"
        assert f"]({name}.{kind})]({name}.md)" in gallery
        assert picture is None or picture.startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_runs(name, tmp_path, monkeypatch):
    # The last is set by `import envpool` (1.2.5), which other tests do in this process.
    for variable in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "MPLBACKEND"):
        monkeypatch.delenv(variable, raising=False)
    if name == "looking_into_a_run":
        pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")
        pytest.importorskip("pygame")
    notebook = read(name, BUDGETS)
    client_of(notebook, tmp_path).execute()
    everything = "".join(shown(notebook))
    assert "0000 00:00:" not in everything  # a line of TensorFlow's
    if name == "looking_into_a_run":
        assert everything.count('"image/png"') == 3 and "video/mp4" in everything
    if name == "export_and_serve":
        assert "False" in everything  # the program in a process of its own has no pgest


@pytest.mark.slow
def test_an_interrupted_cell_returns_and_the_notebook_goes_on(tmp_path):
    """The stop button: train ends with a checkpoint; the cells below use what was learnt."""
    long = {"TIMESTEPS = 60_000": "TIMESTEPS = 50_000_000"}
    # Its rows tell when updates are made.
    rows = {"hooks=[history]": "hooks=[history, pgest.CSVLoggerHook()]"}
    notebook = read("quickstart", BUDGETS | long | rows)
    further = "before = agent.global_timestep\nagent.train(env, timesteps=512)\n"
    further += "print(agent.global_timestep - before, agent.latest_checkpoint() is not None)"
    notebook.cells.append(nbformat.v4.new_code_cell(further))
    updates = tmp_path / "runs" / "quickstart_notebook" / "updates.csv"

    def interrupt() -> None:
        while not updates.exists() or updates.read_text().count("\n") < 3:
            time.sleep(0.2)
        asyncio.run(client.km.interrupt_kernel())

    def executed(cell, cell_index, **_) -> None:
        if "agent.train(env, max_timesteps" in cell.source:
            threading.Thread(target=interrupt, daemon=True).start()

    client = client_of(notebook, tmp_path, on_cell_execute=executed)
    client.execute()
    outputs = shown(notebook)
    assert any("Ctrl-C" in output or "interrupt" in output.lower() for output in outputs)
    assert "512 True" in outputs[-1]
