"""The reference has a page for each class and module, made from the lists in `docs/api*.md`.

A list says `::: pgest.<name>` below a section, as mkdocstrings wants it. Each becomes a page of its
own, named and placed by its section; the names below a heading of the third level share one. The
classes of a module get pages of their own too. The list itself shows links, with the first sentence
of each docstring.
"""

import re
from typing import Any, NamedTuple

import griffe
from mkdocs.structure.files import File, Files

LISTS = ("api.md", "api_tf_agents.md")
SECTION = "API reference"
_FOLDER = "api"

_LINE = re.compile(
    r"^## (?P<section>.+)$"
    r"|^### (?P<group>.+)$"
    r"|^::: pgest\.(?P<name>[\w.]+)\n(?P<options>(?:[ ]+.+\n)*)",
    re.MULTILINE,
)


class Page(NamedTuple):
    """A page of the reference: its title, its file, and what mkdocstrings is asked for."""

    title: str
    uri: str
    names: list[tuple[str, str]]

    @property
    def is_group(self) -> bool:
        """Whether its names share it."""
        return self.title != self.names[0][0]

    def markdown(self) -> str:
        """What mkdocs builds."""
        level = 2 if self.is_group else 1
        asked = [
            f"::: pgest.{name}\n{options or '    options:' + chr(10)}      heading_level: {level}\n"
            for name, options in self.names
        ]
        return "\n".join([f"# {self.title}\n"] * self.is_group + asked)


def with_classes_of_modules(text: str, package: griffe.Module) -> str:
    """The list with the classes of its modules named one by one, behind what else is in them."""

    def entry(line: re.Match[str]) -> str:
        if not line["name"] or not package[line["name"]].is_module or line["options"]:
            return line[0]
        members = package[line["name"]].members.values()
        public = [member for member in members if member.is_public and not member.is_module]
        classes = [
            member.name
            for member in public
            if member.is_class and f"::: pgest.{member.name}\n" not in text
        ]
        others = [member.name for member in public if not member.is_class]
        asked = f"    options:\n      members: {others or 'false'}\n"
        named = [f"\n::: pgest.{line['name']}.{name}\n" for name in classes]
        return f"::: pgest.{line['name']}\n{asked}" + "".join(named)

    return _LINE.sub(entry, text)


def sections(text: str) -> dict[str, list[Page]]:
    """The pages that a list asks for, by section, in its order."""
    found: dict[str, list[Page]] = {}
    pages: list[Page] = []
    group: Page | None = None
    for line in _LINE.finditer(text):
        if line["section"]:
            pages, group = found.setdefault(line["section"], []), None
        elif line["group"]:
            file = re.sub(r"\W+", "_", line["group"].lower())
            group = Page(line["group"], f"{_FOLDER}/{file}.md", [])
            pages.append(group)
        elif group is not None:
            group.names.append((line["name"], line["options"]))
        else:
            asked = (line["name"], line["options"])
            pages.append(Page(line["name"], f"{_FOLDER}/{line['name']}.md", [asked]))
    return found


def with_links(text: str, package: griffe.Module) -> str:
    """The list as readers see it: what mkdocstrings would render becomes a link and a sentence."""
    uris = {
        name: page.uri
        for pages in sections(text).values()
        for page in pages
        for name, _ in page.names
    }

    def entry(line: re.Match[str]) -> str:
        if not line["name"]:
            return line[0]
        name = line["name"]
        target = uris[name] if uris[name].endswith(f"/{name}.md") else f"{uris[name]}#pgest.{name}"
        return f"- [`{name}`]({target}): {first_sentence(package[name].docstring)}\n"

    listed = _LINE.sub(entry, text)
    return re.sub(r"(?<=\n)(- .+\n)\n(?=- )", r"\1", listed)


def first_sentence(docstring: griffe.Docstring | None) -> str:
    """What a docstring says first, on one line."""
    return "" if docstring is None else " ".join(docstring.value.partition("\n\n")[0].split())


def read_package() -> griffe.Module:
    """The public names and their docstrings; nothing is imported."""
    return griffe.load("pgest", search_paths=["."], resolve_aliases=True)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages, and their places in the navigation."""
    package = read_package()
    places: list[Any] = []
    for uri in LISTS:
        source = files.get_file_from_path(uri)
        source.content_string = with_classes_of_modules(source.content_string, package)
        found = sections(source.content_string)
        for page in (page for pages in found.values() for page in pages):
            files.append(File.generated(config, page.uri, content=page.markdown()))
        entries = [
            {title: [{page.title: page.uri} for page in pages]} for title, pages in found.items()
        ]
        places += [uri, *entries] if not places else [{"TF-Agents' names": [uri, *entries]}]
    for place in config.nav:
        if SECTION in place:
            place[SECTION] = places
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns the lists into links."""
    if page.file.src_uri not in LISTS:
        return markdown
    return with_links(markdown, read_package())
