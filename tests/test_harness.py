"""The harness as learners and instructors meet it: pytest's command line, on edited solutions."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import conftest
import pytest
import warm
from course import ROOT, SOLUTIONS

SOLUTION = SOLUTIONS["1"]
TEST = "tests/test_exercise_01_build_resnet18.py"
FAST = ("-k", "not script_runs and not learns_cifar10")
INIT_HOLE = '        raise NotImplementedError("TODO 1.1: BasicBlock.__init__")\n'
FORWARD_HOLE = '        raise NotImplementedError("TODO 1.1: BasicBlock.forward")\n'

pytestmark = pytest.mark.timeout(120)  # most tests start a pytest of their own


def run_pytest(*flags, cwd=ROOT, python_flags=(), **environment):
    """Returns (exit status, everything that pytest printed)."""
    command = ["-m", "pytest", "-p", "no:cacheprovider", *map(str, flags)]
    if not python_flags and not environment:
        done = warm.run(command, cwd)
    else:
        done = subprocess.run(
            [sys.executable, *python_flags, *command],
            cwd=cwd,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
    return done.returncode, done.stdout + done.stderr


def copy_stub(folder, solution):
    """Copy the learner's file that belongs to a solution into a folder. Returns its text."""
    text = (ROOT / solution.name).read_text("utf-8")
    (folder / solution.name).write_text(text, "utf-8")
    return text


def between(text, start, end):
    """The part of a text from the first start to the end that follows it."""
    assert start in text, start
    _, _, rest = text.partition(start)
    assert end in rest, end
    return rest.partition(end)[0]


def table_row(output, task):
    """The closing table's row of a task."""
    row = re.search(rf"^{re.escape(task)}  \w+ .* tests pass .*$", output, re.MULTILINE)
    assert row, output
    return row[0]


@pytest.fixture
def make_target(tmp_path):
    """A function that writes an edited solution, or another text, into a folder.

    It returns that folder. An edit is (old text, new text).
    """

    def write(*edits, text=None):
        if text is None:
            text = SOLUTION.read_text("utf-8")
        for old, new in edits:
            assert old in text, old
            text = text.replace(old, new)
        (tmp_path / SOLUTION.name).write_text(text, "utf-8")
        return tmp_path

    return write


def test_every_task_of_an_untouched_stub_fails_with_its_todo_line(tmp_path):
    stubs = [copy_stub(tmp_path, solution) for solution in SOLUTIONS.values()]
    tasks = set(re.findall(r"TODO (\d+\.\d+): ", "".join(stubs)))
    assert tasks
    # Without "=", pytest takes a folder elsewhere for its root.
    status, output = run_pytest(f"--target={tmp_path}")
    assert status == 1
    assert " passed" not in output
    assert "Traceback" not in output
    for task in tasks:
        count = r" 0 of \d+ +tests pass"
        todo = rf"TODO {task}: \S+ is not written yet \(exercise_\S+, line \d+\)"
        assert re.search(f"{count}   {todo}", table_row(output, task))


def test_the_untouched_stubs_are_the_default_target():
    """As a learner runs it, from the root and from tests/."""
    for cwd in (ROOT, ROOT / "tests"):
        status, output = run_pytest("--collect-only", "-q", cwd=cwd)
        assert status == 0
        assert f"{Path(TEST).name}::" in output
        assert "test_sync" not in output


def test_a_test_file_that_is_run_as_a_script_runs_its_tests(tmp_path):
    """As the Run button of an editor does; without tests it would end as if all had passed."""
    command = [sys.executable, ROOT / TEST]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "TODO 1.1" in table_row(done.stdout, "1.1")


def test_tasks_can_be_done_one_by_one(make_target, tmp_path):
    stub = copy_stub(tmp_path, SOLUTION)
    solution = SOLUTION.read_text("utf-8")
    init_lines = between(solution, "batch norm\n        # for each.\n", "\n    def forward")
    forward_lines = between(solution, "        # a last ReLU.\n", "\n\nclass")
    folder = make_target((INIT_HOLE, init_lines), (FORWARD_HOLE, forward_lines), text=stub)
    status, output = run_pytest("--target", folder, TEST, *FAST)
    assert status == 1
    assert table_row(output, "1.1").endswith("done")
    for task in ("1.2", "1.3", "1.4"):
        assert f"TODO {task}" in table_row(output, task)


def test_a_task_that_needs_an_earlier_one_names_it(make_target):
    first_layer = "        self.conv1 = nn.Conv2d("
    folder = make_target((first_layer, f"{INIT_HOLE}\n    def unused(self):\n{first_layer}"))
    _, output = run_pytest("--target", folder, TEST, *FAST)
    todo = "TODO 1.1: BasicBlock.__init__ is not written yet"
    assert f"task 1.2 needs another one first: {todo}" in table_row(output, "1.2")
    assert table_row(output, "1.3").endswith("done")


def test_stopping_at_the_first_failure_shows_the_first_task(tmp_path):
    copy_stub(tmp_path, SOLUTION)
    _, output = run_pytest("--target", tmp_path, "-x", TEST)
    assert "TODO 1.1" in table_row(output, "1.1")
    assert "0 of 1 " not in table_row(output, "1.1"), "those that did not run count, too"
    assert "1.2  ResNet18" not in output


@pytest.mark.parametrize(
    "text, expected",
    [
        ("x = 1\ndef f(:\n", "line 2: SyntaxError: "),
        (
            "import torch\nimport nonsense_module\n",
            "line 2: ModuleNotFoundError: No module named 'nonsense_module'",
        ),
        ("import exercise_09_mine\n", "'exercise_09_mine'. Each exercise's file stands alone"),
        ("x = 1\n\n1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit: 0. Only below if __name__"),
        ("", "has no"),
    ],
    ids=["syntax", "import", "import of another exercise", "crash", "exit", "empty"],
)
def test_a_file_that_cannot_be_imported_gets_one_sentence(make_target, text, expected):
    status, output = run_pytest("--target", make_target(text=text), TEST, *FAST)
    assert status == 1
    assert expected in output
    assert "Traceback" not in output
    assert " passed" not in output
    assert output.count(expected) <= 4, "at most once per task"


def test_a_file_may_have_a_byte_that_is_no_utf_8(tmp_path):
    """Python itself imports such a file, if the byte is in a comment."""
    copy_stub(tmp_path, SOLUTION)
    path = tmp_path / SOLUTION.name
    comment = b"        # TODO 1.1: "
    text = path.read_bytes()
    assert comment in text
    path.write_bytes(text.replace(comment, b"        # for my caf\xe9\n" + comment))
    status, output = run_pytest("--target", tmp_path, TEST, *FAST)
    assert status == 1
    assert "INTERNALERROR" not in output
    assert "TODO 1.1: BasicBlock.__init__ is not written yet" in table_row(output, "1.1")


def test_a_file_that_is_saved_as_utf_16_is_told_so(tmp_path):
    (tmp_path / SOLUTION.name).write_text(SOLUTION.read_text("utf-8"), "utf-16")
    status, output = run_pytest("--target", tmp_path, TEST, *FAST)
    assert status == 1
    assert "if it is saved as UTF-16, save it as UTF-8" in output


def test_the_course_may_be_in_a_folder_with_brackets(tmp_path):
    course = tmp_path / "course [1]"
    shutil.copytree(ROOT / "tests", course / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "solutions", course / "solutions")
    shutil.copy(ROOT / "pyproject.toml", course)
    status, output = run_pytest("--collect-only", "-q", cwd=course)
    assert status == 0, output
    assert f"{TEST}::" in output


def test_pytest_may_be_started_in_a_folder_above(tmp_path):
    """Then it reads no pyproject.toml, and looks for tests by itself."""
    ignored = shutil.ignore_patterns("__pycache__", "variants")
    shutil.copytree(ROOT / "tests", tmp_path / "course" / "tests", ignore=ignored)
    shutil.copytree(ROOT / "solutions", tmp_path / "course" / "solutions")
    status, output = run_pytest("--collect-only", "-q", cwd=tmp_path)
    assert status == 0, output
    assert f"course/{TEST}::" in output
    assert "test_given" not in output


def test_a_missing_file_is_named(tmp_path):
    status, output = run_pytest("--target", tmp_path, TEST, *FAST)
    assert status == 1
    assert f"there is no {SOLUTION.name} in {tmp_path}" in output


def test_a_script_in_the_place_of_its_tests_is_named():
    for path in (SOLUTION, Path(SOLUTION.name)):
        status, output = run_pytest(path)
        assert status == 4
        assert f"{path} has your code; the tests are in {TEST}" in output


def test_a_folder_with_scripts_in_the_place_of_tests_is_named():
    status, output = run_pytest("solutions")
    assert status == 4
    assert "solutions has no tests; write: pytest --target=solutions" in output


def test_a_task_of_which_some_tests_were_left_out_is_not_called_done():
    status, output = run_pytest("--target", "solutions", TEST, "-k", "stride_is_1")
    assert status == 0
    (row,) = [line for line in output.splitlines() if "tests pass" in line]
    assert row.endswith("so far: not all of its tests have run")


@pytest.mark.parametrize(
    "flag, expected",
    [
        ("--seconds=0", "--seconds must be more than 0"),
        ("--draw=20260115120000", "--draw must be from 0 to 1,000,000,000"),
        ("--draw=-1", "--draw must be from 0 to"),
    ],
)
def test_numbers_out_of_range_get_one_sentence(flag, expected):
    status, output = run_pytest(TEST, flag)
    assert status == 4
    assert expected in output


def test_a_missing_folder_is_named(tmp_path):
    status, output = run_pytest("--target", tmp_path / "nowhere")
    assert status == 4
    assert "there is no such folder" in output
    assert "Traceback" not in output


def test_an_endless_loop_ends_at_its_task(make_target):
    first_lines = "    model.eval()\n    correct = 0\n"
    endless_loop = "    while True:\n        pass\n"
    folder = make_target((first_lines, endless_loop + first_lines))
    tests = "accuracy_uses_eval_mode or shortcut_is_the_identity"
    status, output = run_pytest("--target", folder, "--timeout", 2, TEST, "-k", tests)
    assert status == 1
    assert "took longer than 2 s" in output
    assert "a loop that does not end" in output
    assert "so far" in table_row(output, "1.3")
    assert "wrong" in table_row(output, "1.4")


def test_an_endless_loop_at_import_ends(make_target):
    folder = make_target(text="while True:\n    pass\n")
    status, output = run_pytest("--target", folder, "--timeout", 3, TEST, *FAST)
    assert status == 1
    assert "took longer than 3 s" in output


def test_waiting_is_not_called_a_loop(make_target):
    first_lines = "    model.eval()\n    correct = 0\n"
    wait = "    import time; time.sleep(60)\n"
    folder = make_target((first_lines, wait + first_lines))
    _, output = run_pytest("--target", folder, "--timeout", 3, TEST, "-x", "-k", "accuracy")
    assert re.search("took longer than 3 s, [01] s of them computing: either other", output)


def test_computing_has_a_limit_of_its_own():
    class Item:
        stash = {}
        config = SimpleNamespace(getoption={"seconds": 15}.get)  # half as long as usual

        def get_closest_marker(self, name):
            return SimpleNamespace(args=[0.6])

    hook = conftest.pytest_runtest_protocol(Item())
    next(hook)
    with pytest.raises(conftest.ComputesForTooLong):
        while True:
            pass
    hook.close()
    threads = threading.active_count()
    hook = conftest.pytest_runtest_protocol(Item())
    next(hook)
    assert threading.active_count() == threads + 1
    hook.close()
    end = time.monotonic() + 0.6
    while time.monotonic() < end:  # nobody stops what comes after a test
        pass
    assert threading.active_count() == threads
    assert "look for a loop that does not end" in conftest.too_long(0.3, 0.3)


def test_a_dry_run_that_does_not_end_is_stopped(tmp_path):
    script = tmp_path / "exercise_09_endless.py"
    script.write_text("import time; time.sleep(60)")
    run = conftest.DryRun(script, tmp_path, limit=2)
    with pytest.raises(conftest.Wrong, match="the dry run took longer than 2 s, [01] s of them"):
        run.finish()
    assert run.process.returncode
    run.errors.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process with a positive status")
def test_a_dry_run_that_the_system_ends_is_not_called_the_scripts_mistake(tmp_path):
    script = tmp_path / "exercise_09_killed.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    run = conftest.DryRun(script, tmp_path, limit=60)
    with pytest.raises(conftest.Wrong, match=r"the system ended the dry run \(Killed\)"):
        run.finish()
    run.errors.close()


def test_a_breakpoint_in_the_script_does_not_stop_its_dry_run(tmp_path):
    script = tmp_path / "exercise_09_breakpoint.py"
    script.write_text("breakpoint()\n")
    run = conftest.DryRun(script, tmp_path, limit=60)
    assert run.finish() == tmp_path / "dry_run"
    run.errors.close()


@pytest.mark.parametrize(
    "environment, python_flags, flags",
    [
        ({}, ["-OO"], []),
        ({"PYTHONSAFEPATH": "1"}, [], []),
        ({}, [], ["--import-mode=importlib"]),
        ({}, [], ["-n", "2"]),
    ],
    ids=["-OO", "PYTHONSAFEPATH", "importlib", "-n 2"],
)
def test_other_ways_to_run_it_give_the_same_table(make_target, environment, python_flags, flags):
    folder = make_target(("return correct / total", "return 100 * correct / total"))
    flags = ["--target", folder, TEST, "-k", "accuracy or shortcut_is", *flags]
    status, output = run_pytest(*flags, python_flags=python_flags, **environment)
    assert status == 1
    assert "it is a percentage" in output
    assert "FAILURES" not in output
    assert "wrong" not in table_row(output, "1.3")
    assert table_row(output, "1.4").endswith("hints: EXERCISES.md, 1.4")


def test_an_editor_finds_the_learners_tests_and_no_others():
    for place in (".", "tests"):
        status, output = run_pytest("--collect-only", "-q", place)
        assert status == 0
        files = {line.partition("::")[0] for line in output.splitlines() if "::" in line}
        assert len(files) == 5
        assert all(file.startswith("tests/test_exercise_0") for file in files)


def test_a_name_that_the_given_code_uses_too_is_named(make_target):
    helper = "def accuracy(model, batches):\n    return 0\n\n\ndef train():\n    pass\n\n\n"
    target = make_target(("def accuracy(", f"{helper}def accuracy("), ("/ total", "/ 2"))
    _, output = run_pytest("--target", target, TEST, *FAST, "-k", "accuracy")
    assert re.search(r"Mind that line \d+ defines accuracy again, so that line \d+'s", output)


def test_settings_of_torch_do_not_reach_other_files(make_target):
    target = make_target(("\n# %% Your part", "\ntorch.set_default_dtype(torch.float64)\n# %%"))
    (target / SOLUTIONS["2"].name).write_bytes(SOLUTIONS["2"].read_bytes())
    tests = [TEST, "tests/test_exercise_02_ablation_skip.py", "-k", "shape or degradation"]
    status, output = run_pytest("--target", target, *tests)
    assert status == 0, output


def test_a_dry_run_that_fails_shows_the_exception_and_not_what_follows_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("raise RuntimeError('CUDA error: no kernel\\nCompile with this and that.')")
    run = conftest.DryRun(script, tmp_path, limit=60)
    with pytest.raises(conftest.Wrong, match="^RuntimeError: CUDA error: no kernel$"):
        run.finish()
    run.errors.close()


def test_an_exception_names_the_learners_line(make_target):
    line = "        return F.relu(branch + self.shortcut(x))"
    printing = "        print('the branch has', tuple(branch.shape))\n"
    folder = make_target((line, f"{printing}{line}".replace("shortcut", "shortcutt")))
    number = 1 + SOLUTION.read_text("utf-8").splitlines().index(line) + 1
    _, output = run_pytest("--target", folder, TEST, *FAST)
    assert "BasicBlock(6, 6, stride=1) on an input (130, 6, 8, 8) raised AttributeError" in output
    assert f"({SOLUTION.name}, line {number})" in output
    assert "Printed in this test:\nthe branch has (130, 6, 8, 8)" in output


def test_pytests_own_tracebacks_are_there_if_you_ask_for_them(make_target):
    folder = make_target(("return correct / total", "return 100 * correct / total"))
    _, output = run_pytest("--target", folder, "--tb=short", TEST, *FAST)
    assert "FAILURES" in output
    assert "it is a percentage" in output
