"""Tests of the documentation checks: each finds what it is for, and nothing in a correct text."""

from pathlib import Path

import pytest

from tests.docs import document_checks
from tests.docs.document_checks import Repository

COMMANDS = {"check": (), "schedules": ("list", "fires")}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a small repository with one module, one document and one make target."""
    module = tmp_path / "libs" / "domain" / "src" / "daybook_domain" / "claims.py"
    module.parent.mkdir(parents=True)
    module.write_text("class Claim:\n    def renew(self) -> None: ...\n\n\nLIMIT = 1\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "guide.md").write_text("# The guide\n\n## Lock order, in short\n")
    (tmp_path / "Makefile").write_text("check: setup ## Check\n\t@true\n")
    return document_checks.read_repository(tmp_path, COMMANDS)


@pytest.mark.parametrize(
    "link", ["docs/guide.md", "docs/guide.md#lock-order-in-short", "#here", "https://example.com/x"]
)
def test_an_existing_link_is_no_problem(repository: Repository, link: str) -> None:
    (repository.root / "README.md").write_text(text := f"# Here\n\n[text]({link})\n")

    assert list(document_checks.find_broken_links(repository, "README.md", text)) == []


@pytest.mark.parametrize("link", ["docs/missing.md", "docs/guide.md#missing", "#missing"])
def test_a_broken_link_is_found(repository: Repository, link: str) -> None:
    (repository.root / "README.md").write_text(text := f"# Here\n\n[text]({link})\n")

    assert len(list(document_checks.find_broken_links(repository, "README.md", text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "`libs/domain`, `docs/guide.md`",
        "`daybook_domain/claims.py` and `claims.py`",
        "```\nlibs/domain/src  the code\n```\n",
        "libs/missing is not code",
    ],
)
def test_an_existing_path_is_no_problem(repository: Repository, text: str) -> None:
    assert list(document_checks.find_missing_paths(repository, text)) == []


@pytest.mark.parametrize(
    "text",
    ["`libs/missing`", "`claims/missing.py`", "text\n\n    cat docs/missing.md\n", "`missing.md`"],
)
def test_a_missing_path_is_found(repository: Repository, text: str) -> None:
    assert len(list(document_checks.find_missing_paths(repository, text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "`make check`",
        "`daybook schedules fires NAME` and `daybook check --days 3`",
        "`daybook schedules list|fires`",
        "text\n\n    daybook check  # as daybook does\n",
        "We make reports, and daybook runs them.",
    ],
)
def test_an_existing_command_is_no_problem(repository: Repository, text: str) -> None:
    assert list(document_checks.find_unknown_commands(repository, text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "`make cheque`",
        "`daybook missing`",
        "`daybook schedules list|missing`",
        "`daybook run|check`",
    ],
)
def test_an_unknown_command_is_found(repository: Repository, text: str) -> None:
    assert len(list(document_checks.find_unknown_commands(repository, text))) == 1


def test_an_unknown_environment_variable_is_found() -> None:
    text = "`DAYBOOK_KNOWN`, `DAYBOOK_MISSING` and `DAYBOOK_TEST_*_IMAGE`"

    problems = list(document_checks.find_unknown_variables("DAYBOOK_KNOWN_AS DAYBOOK_KNOWN", text))

    assert problems == ["environment variable DAYBOOK_MISSING, which nothing reads"]


@pytest.mark.parametrize("name", ["claims", "claims.Claim", "claims.Claim.renew", "claims.LIMIT"])
def test_a_defined_name_is_no_problem(repository: Repository, name: str) -> None:
    text = f"`daybook_domain.{name}`"

    assert list(document_checks.find_unknown_names(repository, text)) == []


@pytest.mark.parametrize("name", ["missing", "claims.missing", "claims.Claim.missing"])
def test_an_undefined_name_is_found(repository: Repository, name: str) -> None:
    text = f"`daybook_domain.{name}`"

    assert len(list(document_checks.find_unknown_names(repository, text))) == 1


@pytest.mark.parametrize("section", document_checks.ADR_SECTIONS)
def test_a_decision_record_without_a_section_is_found(section: str) -> None:
    others = [f"## {each}" for each in document_checks.ADR_SECTIONS if each != section]
    text = "\n\n".join(["# 7. Title", *others])

    problems = list(document_checks.find_incomplete_adr("docs/adr/0007-title.md", text))

    assert problems == [f"no section {section}"]


def test_a_decision_record_with_another_number_than_its_file_is_found() -> None:
    sections = [f"## {each}" for each in document_checks.ADR_SECTIONS]
    text = "\n\n".join(["# 8. Title", *sections])

    assert len(list(document_checks.find_incomplete_adr("docs/adr/0007-title.md", text))) == 1


def test_two_decision_records_with_one_number_are_found() -> None:
    documents = ["docs/adr/0007-a.md", "docs/adr/0007-b.md", "docs/adr/0008-c.md"]

    assert len(list(document_checks.find_duplicate_adr_numbers(documents))) == 1


def test_a_missing_document_that_source_text_names_is_found(repository: Repository) -> None:
    source = "See docs/guide.md, docs/missing.md and docs/adr/0001."

    problems = list(document_checks.find_missing_documents(repository, "libs/x.py", source))

    assert problems == [
        "libs/x.py: document docs/adr/0001, which does not exist",
        "libs/x.py: document docs/missing.md, which does not exist",
    ]


def test_all_problems_are_found_through_one_call(repository: Repository) -> None:
    (repository.root / "README.md").write_text("[text](missing.md) `make cheque`\n")
    again = document_checks.read_repository(repository.root, COMMANDS)

    assert list(document_checks.find_problems(again)) == [
        "README.md: link to missing.md, which does not exist",
        "README.md: make cheque, which is no target of the Makefile",
    ]
