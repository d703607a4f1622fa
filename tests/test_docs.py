"""README.md and EXERCISES.md: links lead somewhere, figures exist and are small, commands are the ones that run."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "EXERCISES.md"]


def anchors(page):
    """The anchors that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    assert links
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = ROOT / name if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_figures_are_small_and_have_alternative_text():
    for page in PAGES:
        for text, name in re.findall(r"!\[(.*?)\]\(([^)]+)\)", page.read_text("utf-8"), re.DOTALL):
            assert len(text) > 40, f"{name} needs a text that says what it shows"
            assert (ROOT / name).stat().st_size < 200_000, name


def test_details_are_closed():
    for page in PAGES:
        text = page.read_text("utf-8")
        assert text.count("<details>") == text.count("</details>") == text.count("<summary>"), page


def test_the_readme_and_ci_run_the_same_test_command():
    assert "pytest --target solutions\n" in (ROOT / "README.md").read_text("utf-8")
    assert "\npytest --target solutions\n" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_files_that_the_pages_name_exist():
    for page in PAGES:
        for name in re.findall(r"[\w/.]*\w+\.(?:py|txt|toml)\b", page.read_text("utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_readme_says_how_many_answers_the_kill_matrix_has():
    sys.path.insert(0, str(ROOT / "tests" / "variants"))
    variants = [v for n in range(1, 6) for v in importlib.import_module(f"exercise_0{n}").VARIANTS]
    wrong = sum(not variant.right for variant in variants)
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"{wrong} wrong answers and {len(variants) - wrong} right ones" in text


def test_commands_of_the_readme_name_flags_that_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    commands = set(re.findall(r"python (tools/[\w/]+\.py|solutions/\w+\.py)([^`\n#]*)", text))
    assert len(commands) > 5
    for script, rest in commands:
        flags = re.findall(r"(--[\w-]+)", rest)
        if flags:
            help_text = subprocess.run(
                [sys.executable, ROOT / script, "--help"], capture_output=True, text=True, timeout=60
            ).stdout
            for flag in flags:
                assert flag in help_text, f"{script} has no {flag}"
