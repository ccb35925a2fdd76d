"""Checks of the documentation against the repository, run by `make check`.

`python -m tests.docs.document_checks` prints one line for each problem and exits with code 1 if
there is any. Settings are compared with docs/settings.md by the unit tests of the settings.
"""

import ast
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from typer.main import get_command

from daybook_console.main import app

ROOT = Path(__file__).parents[2]
SOURCE_FOLDERS = ("libs", "services", "tests", "infra")
REMOVED_VARIABLES = {"DAYBOOK_CACHE", "DAYBOOK_CACHE_TIMEOUT"}
"""Settings of earlier releases, which the changelog and decision records still mention."""
ADR_SECTIONS = ("Status", "Date", "Context", "Decision", "Consequences", "Alternatives")

LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(?P<text>.+?) *#*$", re.M)
FENCE = re.compile(r"^```.*?^```[^\n]*$", re.M | re.S)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?:(?: {4}|\t)[^\n]*(?:\n|\Z)|\n(?= {4}))+")
SPAN = re.compile(r"`(?P<code>[^`\n]+)`")
PATH = re.compile(r"\.?[\w-]+(?:[/.][\w-]+)*/?")
MAKE = re.compile(r"\bmake (?P<target>[a-z][a-z-]*)")
DAYBOOK = re.compile(
    r"(?:^|[\s(/])daybook (?P<commands>[a-z][a-z|-]*)(?: (?P<subcommands>[a-z][a-z|-]*))?", re.M
)
COMMENT = re.compile(r"(?<!\S)#.*$", re.M)
VARIABLE = re.compile(r"\bDAYBOOK_[A-Z_]*[A-Z](?![A-Z_*])")
DOTTED = re.compile(r"daybook_[a-z]+(?:\.\w+)+")
DOCUMENT_IN_SOURCE = re.compile(r"docs/[\w./-]+\.(?:md|json)|docs/adr/\d{4}(?![\w-])")


@dataclass(frozen=True)
class Repository:
    """The files of a checkout and what its Makefile and command line offer."""

    root: Path
    files: frozenset[str]
    """All files, relative to the root."""
    targets: frozenset[str]
    """The targets of the Makefile."""
    commands: Mapping[str, Collection[str]]
    """The subcommands of `daybook`, each with its own subcommands."""

    def has_path(self, path: str) -> bool:
        """Return whether a file or folder has this path, or a path that ends with it."""
        path = path.rstrip("/")
        if (self.root / path).exists():
            return True
        return any(file.endswith(f"/{path}") for file in self.files)


def read_repository(root: Path, commands: Mapping[str, Collection[str]]) -> Repository:
    """Return what documents may refer to in the checkout at `root`."""
    targets = re.findall(r"^([a-z][a-z-]*):", (root / "Makefile").read_text(), re.M)
    files = {
        file.relative_to(root).as_posix()
        for folder in (*SOURCE_FOLDERS, "docs")
        for file in (root / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    files |= {file.name for file in root.iterdir() if file.is_file()}
    return Repository(root, frozenset(files), frozenset(targets), commands)


def list_documents(repository: Repository) -> list[str]:
    """Return the Markdown files of the root and of docs/, in order."""
    return sorted(
        file
        for file in repository.files
        if file.endswith(".md") and ("/" not in file or file.startswith("docs/"))
    )


def anchors(markdown: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    found: set[str] = set()
    for heading in HEADING.finditer(FENCE.sub("", markdown)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading["text"]).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(anchor)
    return found


def code_of(markdown: str) -> str:
    """Return the code spans and code blocks of a document, one a line."""
    blocks = FENCE.findall(markdown)
    rest = FENCE.sub("\n", markdown)
    blocks += INDENTED.findall(rest)
    spans = [span["code"] for span in SPAN.finditer(INDENTED.sub("\n", rest))]
    return "\n".join([*blocks, *spans])


def find_broken_links(repository: Repository, document: str, markdown: str) -> Iterator[str]:
    """Yield the relative links whose file or anchor does not exist."""
    folder = (repository.root / document).parent
    for link in LINK.finditer(FENCE.sub("", markdown)):
        target, _, anchor = link["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (folder / target) if target else repository.root / document
        if not file.exists():
            yield f"link to {target}, which does not exist"
        elif anchor and anchor not in anchors(file.read_text()):
            yield f"link to {link['target']}, which has no such heading"


def find_missing_paths(repository: Repository, markdown: str) -> Iterator[str]:
    """Yield the paths in code that name no file or folder of the repository."""
    for word in code_of(markdown).split():
        path = word.strip("`'\",:;()|")
        if PATH.fullmatch(path) and _looks_like_path(path) and not repository.has_path(path):
            yield f"path {path}, which does not exist"


def _looks_like_path(word: str) -> bool:
    if word.startswith("."):
        return False
    first, slash, _ = word.partition("/")
    return bool(slash and first in (*SOURCE_FOLDERS, "docs")) or word.endswith((".py", ".md"))


def find_unknown_commands(repository: Repository, markdown: str) -> Iterator[str]:
    """Yield the Makefile targets and `daybook` subcommands that do not exist."""
    code = COMMENT.sub("", code_of(markdown))
    for match in MAKE.finditer(code):
        if match["target"] not in repository.targets:
            yield f"make {match['target']}, which is no target of the Makefile"
    for match in DAYBOOK.finditer(code):
        for command in match["commands"].split("|"):
            if command not in repository.commands:
                yield f"daybook {command}, which is no command"
                continue
            known = repository.commands[command]
            for other in (match["subcommands"] or "").split("|"):
                if known and other and other not in known:
                    yield f"daybook {command} {other}, which is no command"


def find_unknown_variables(source: str, markdown: str) -> Iterator[str]:
    """Yield the environment variables that `source`, all source text, does not mention."""
    for variable in sorted(set(VARIABLE.findall(markdown)) - REMOVED_VARIABLES):
        if not re.search(rf"\b{variable}\b", source):
            yield f"environment variable {variable}, which nothing reads"


def find_unknown_names(repository: Repository, markdown: str) -> Iterator[str]:
    """Yield the dotted names `daybook_….module.name` that no module defines."""
    for name in sorted(set(DOTTED.findall(code_of(markdown)))):
        if not _is_defined(repository, name):
            yield f"name {name}, which is not defined"


def _is_defined(repository: Repository, name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = "/".join(parts[:length])
        for file in repository.files:
            if file.endswith((f"/src/{module}.py", f"/src/{module}/__init__.py")):
                tree = ast.parse((repository.root / file).read_text())
                return _defines(tree.body, parts[length:])
    return False


def _defines(body: list[ast.stmt], names: list[str]) -> bool:
    if not names:
        return True
    for statement in body:
        match statement:
            case ast.ClassDef(name=found, body=inner) if found == names[0]:
                return _defines(inner, names[1:])
            case ast.FunctionDef(name=found) | ast.AsyncFunctionDef(name=found) if (
                found == names[0]
            ):
                return len(names) == 1
            case ast.Assign(targets=[ast.Name(id=found)]) if found == names[0]:
                return len(names) == 1
            case ast.AnnAssign(target=ast.Name(id=found)) if found == names[0]:
                return len(names) == 1
            case _:
                continue
    return False


def find_incomplete_adr(document: str, markdown: str) -> Iterator[str]:
    """Yield the sections that a decision record lacks, and a number that is not its file's."""
    name = Path(document).name
    if not document.startswith("docs/adr/") or not name[:4].isdigit():
        return
    for section in ADR_SECTIONS:
        if not re.search(rf"^(?:## |- |\*\*){section}\b", markdown, re.M):
            yield f"no section {section}"
    if not markdown.startswith(f"# {int(name[:4])}. "):
        yield f"title does not start with its number, {int(name[:4])}"


def find_duplicate_adr_numbers(documents: Collection[str]) -> Iterator[str]:
    """Yield the decision records that share their number with another one."""
    seen: dict[str, str] = {}
    for document in sorted(documents):
        if document.startswith("docs/adr/"):
            number = Path(document).name[:4]
            if number in seen:
                yield f"{document}: same number as {seen[number]}"
            seen[number] = document


def find_missing_documents(repository: Repository, file: str, source: str) -> Iterator[str]:
    """Yield the documents that source text refers to and that do not exist."""
    for named in sorted(set(DOCUMENT_IN_SOURCE.findall(source))):
        if not any(known.startswith(named) for known in repository.files):
            yield f"{file}: document {named}, which does not exist"


def find_problems(repository: Repository) -> Iterator[str]:
    """Yield all problems of all documents, each with its document."""
    documents = list_documents(repository)
    sources = dict(_read_sources(repository))
    all_source = "\n".join(sources.values())
    for document in documents:
        markdown = (repository.root / document).read_text()
        for problems in (
            find_broken_links(repository, document, markdown),
            find_missing_paths(repository, markdown),
            find_unknown_commands(repository, markdown),
            find_unknown_variables(all_source, markdown),
            find_unknown_names(repository, markdown),
            find_incomplete_adr(document, markdown),
        ):
            yield from (f"{document}: {problem}" for problem in problems)
    yield from find_duplicate_adr_numbers(documents)
    for file, source in sources.items():
        if not file.startswith("tests/docs/"):
            yield from find_missing_documents(repository, file, source)


def _read_sources(repository: Repository) -> Iterator[tuple[str, str]]:
    for file in sorted(repository.files):
        in_source_folder = file.startswith(tuple(f"{folder}/" for folder in SOURCE_FOLDERS))
        if in_source_folder or file == "Makefile":
            try:
                yield file, (repository.root / file).read_text()
            except UnicodeDecodeError:
                continue


def list_commands() -> dict[str, Collection[str]]:
    """Return the subcommands of `daybook` as they are installed."""
    group = get_command(app)
    commands: Mapping[str, object] = getattr(group, "commands", {})
    return {name: getattr(command, "commands", {}) for name, command in commands.items()}


def main() -> None:
    """Print the problems of this checkout; exit with code 1 if there are any."""
    problems = list(find_problems(read_repository(ROOT, list_commands())))
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
