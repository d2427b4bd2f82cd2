"""The notebooks of examples/notebooks/ become pages, with the outputs that they were stored with.

    python docs/building/notebooks.py [name …]

runs them, all unless some are named, and stores their outputs: `make notebooks`. Building the pages
runs none.
"""

import base64
import html
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent.parent / "examples" / "notebooks"
# What a terminal is told to do, such as colours; a page shows the text.
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def markdown(notebook: dict[str, Any], name: str) -> str:
    """The cells and outputs of a notebook as a page.

    Args:
      notebook: what its file holds.
      name: of the file; the page says where it is.
    """
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [shown for output in cell["outputs"] if (shown := _output(output))]
    heading, *rest = parts
    return "\n\n".join([heading, f"This page is `examples/notebooks/{name}.ipynb`.", *rest]) + "\n"


def picture(notebook: dict[str, Any]) -> bytes | None:
    """The last picture among the outputs of a notebook, as PNG, for the gallery; None without."""
    found = None
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            found = output.get("data", {}).get("image/png", found)
    return None if found is None else base64.b64decode("".join(found))


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "error":
        return _text("".join(output["traceback"]))
    if output["output_type"] == "stream":
        return "" if output["name"] == "stderr" else _text("".join(output["text"]))
    data = output["data"]
    for kind in ("image/png", "image/gif"):
        if kind in data:
            source = "".join("".join(data[kind]).split())
            return _html(f'<img alt="What the cell above draws" src="data:{kind};base64,{source}">')
    if "text/html" in data:
        return _html("".join(data["text/html"]))
    return _text("".join(data["text/plain"]))


def _text(text: str) -> str:
    return _html(f"<pre>{html.escape(_ESCAPES.sub('', text).rstrip())}</pre>")


def _html(shown: str) -> str:
    """On its own, and without an empty line, at which Markdown would begin again."""
    return '<div class="output">' + shown.strip().replace("\n\n", "\n&#8203;\n") + "</div>"


def on_files(files: Any, config: Any) -> Any:
    """Adds a page and a picture for each notebook; the navigation of mkdocs.yml names the pages."""
    from mkdocs.structure.files import File

    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        content = markdown(notebook, path.stem)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=content))
        shown = picture(notebook)
        if shown is not None:
            files.append(File.generated(config, f"notebooks/{path.stem}.png", content=shown))
    return files


def run(path: Path) -> None:
    """Runs a notebook in an empty directory, and stores its outputs."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as directory:
        nbclient.NotebookClient(
            notebook, timeout=1200, resources={"metadata": {"path": directory}}, record_timing=False
        ).execute()
    # Versions of the machine where it ran, its directories and the lines of TensorFlow and of
    # drivers say nothing to readers.
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_cleaned, cell.outputs) if output]
    stored = nbformat.writes(notebook).replace(f"{directory}/", "")
    path.write_text(stored + "\n", encoding="utf-8")


def _cleaned(output: Any) -> Any:
    """An output without what TensorFlow logs; None for stderr and where nothing is left."""
    if output.output_type != "stream":
        return output
    lines = output.text.splitlines(keepends=True)
    output.text = "".join(line for line in lines if not line.startswith("INFO:tensorflow:"))
    return output if output.name == "stdout" and output.text.strip() else None


if __name__ == "__main__":
    for found in sorted(FOLDER.glob("*.ipynb")):
        if found.stem in (sys.argv[1:] or [found.stem]):
            print(found.name, flush=True)
            run(found)
