"""A made class for tools/grade.py: right, half-done and wrong submissions, and every attack that we could think of.

A learner has files, the points that they deserve, and words that the status in grades.csv must hold. A cheat stands
on top of wrong answers to all of exercise 1's tasks, so that any point it gets is undeserved. What only does harm
stands on top of right ones, so that what is right must still count.
"""

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent / "variants"))
from changes import SOLUTIONS, edit, hole

ROOT = SOLUTIONS.parent
NAME = "exercise_01_build_resnet18.py"
RIGHT = (SOLUTIONS / NAME).read_text("utf-8")
STUB = (ROOT / NAME).read_text("utf-8")
SUM = "F.relu(branch + self.shortcut(x))"
FORGED = (
    '{"exercise": "1", "status": "judged", "caught": [], "tasks": {}, "points": 20, "score": 20}'
)
VMAP = """
with undisturbed(model, False):
    gradients = torch.func.vmap(torch.func.grad(lambda x: model(x[None]).sum()))
    first, second = [F.normalize(gradients(x).flatten(1).double(), eps=0) for x in (images, neighbours)]
return (first * second).sum(dim=1).mean().detach()
"""
SORTS = """
import copy, dataclasses, gc, inspect, logging, pickle, platform, sys, unittest
from importlib.metadata import version
from torchvision import models, transforms
try:
    import torchinfo
except ImportError:
    torchinfo = None
IN_COLAB = "google.colab" in sys.modules
logging.basicConfig(level=logging.DEBUG)
logging.getLogger(__name__).info("%s, %s", version("torch"), platform.platform())
gc.collect()
@dataclasses.dataclass(frozen=True)
class Settings:
    width: int = 64
    names: list[str] = dataclasses.field(default_factory=list)
    def __post_init__(self):
        object.__setattr__(self, "names", ["a"])
copy.deepcopy(pickle.loads(pickle.dumps({"a": torch.zeros(1)})))
print(Settings(), inspect.signature(F.relu))
"""
TASKS = {"1.1": 6, "1.2": 6, "1.3": 4, "1.4": 4}
OTHERS = [path.name for path in sorted(SOLUTIONS.glob("exercise_0*.py")) if path.name != NAME]


class Learner(NamedTuple):
    """files: {name: text or bytes}; links: {name: target}; small: in the small class, too."""

    points: float
    status: str
    files: dict
    links: dict = {}
    small: bool = False


def changed(*changes, text=RIGHT):
    """A script with changes."""
    for change in changes:
        text = change(text)
    return text


def at_import(code):
    """A change: code that runs when the script is imported."""
    return edit("\nfrom tqdm import tqdm\n", f"\nfrom tqdm import tqdm\n\n{code}\n")


NO_SKIP = edit(SUM, "F.relu(branch)")
NO_NORM = edit(
    "return nn.Sequential(projection, nn.BatchNorm2d(out_channels))", "return projection"
)
ALL_RIGHT = hole("accuracy", "model.eval()\nfor _ in batches:\n    pass\nreturn 1.0")
WRONG = changed(NO_SKIP, NO_NORM, ALL_RIGHT)


def cheat(code, status="withheld"):
    """A learner whose answers are all wrong, and whose script does something when it is imported."""
    return Learner(0, status, {NAME: changed(at_import(code), text=WRONG)})


def in_forward(code, points, status, text=RIGHT):
    """A learner whose BasicBlock does something when it is called."""
    return Learner(points, status, {NAME: changed(edit(f"        return {SUM}", code), text=text)})


HONEST = {
    "right": Learner(
        100, "ok", {NAME: RIGHT} | {name: (SOLUTIONS / name).read_text("utf-8") for name in OTHERS}
    ),
    "right_in_exercise_1": Learner(20, "", {NAME: RIGHT}, small=True),
    "right_but_renamed": Learner(20, "", {"homework/my exercise_01 (1).py": RIGHT}),
    "untouched": Learner(0, "", {NAME: STUB}, small=True),
    "half_done": Learner(
        8,
        "",
        {
            NAME: changed(
                hole(
                    "BasicBlock.__init__",
                    'raise NotImplementedError("TODO 1.1: BasicBlock.__init__")',
                ),
                hole(
                    "ResNet18.__init__", 'raise NotImplementedError("TODO 1.2: ResNet18.__init__")'
                ),
            )
        },
        small=True,
    ),
    "wrong": Learner(0, "", {NAME: WRONG}),
    "wrong_in_one_task": Learner(16, "", {NAME: changed(ALL_RIGHT)}),
    "does_not_compile": Learner(0, "", {NAME: RIGHT + "\ndef (:\n"}),
    "handed_in_nothing": Learner(0, "", {"notes.txt": "see you on Monday"}),
    "prints_and_warns": Learner(
        20,
        "",
        {
            NAME: changed(
                edit(
                    "    model.eval()\n",
                    "    model.eval()\n    print('x' * 10**7)\n    warnings.warn('old')\n",
                ),
                at_import("import warnings"),
            )
        },
        small=True,
    ),
    "uses_all_sorts_of_things": Learner(20, "", {NAME: changed(at_import(SORTS))}),
    "chooses_a_device": Learner(
        20, "", {NAME: changed(at_import("torch.set_default_device('cpu')"))}
    ),
    "imports_what_is_not_there": Learner(0, "", {NAME: changed(at_import("import torchinfo"))}),
    "uses_vmap": Learner(
        20,
        "",
        {OTHERS[1]: hole("gradient_correlation", VMAP)((SOLUTIONS / OTHERS[1]).read_text("utf-8"))},
    ),
}

HARMFUL = {
    "hangs_at_import": Learner(0, "", {NAME: changed(at_import("while True:\n    pass"))}),
    "hangs_and_catches_everything": in_forward(
        """        while True:
            try:
                while True:
                    pass
            except BaseException:
                continue""",
        8,
        "did not end",
    ),
    "takes_all_memory": Learner(
        16,
        "",
        {
            NAME: changed(
                edit(
                    "    model.eval()\n",
                    "    model.eval()\n    hoard = [bytearray(2**28) for _ in range(400)]\n",
                )
            )
        },
    ),
    "forks_without_end": Learner(
        0,
        "starts a process",
        {
            NAME: changed(
                at_import(
                    "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
                )
            )
        },
    ),
    "forks_as_a_script": Learner(
        20,
        "",
        {
            NAME: changed(
                edit(
                    'if __name__ == "__main__":\n',
                    'if __name__ == "__main__":\n    while True:\n        os.fork()\n',
                )
            )
        },
    ),
    "leaves_processes_behind": in_forward(
        """        import subprocess
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        return F.relu(branch + self.shortcut(x))""",
        0,
        "starts a process",
    ),
    "crashes_in_forward": in_forward(
        "        os.abort()",
        8,
        "ended the process",
    ),
    "exits_in_forward": in_forward(
        "        sys.exit(0)", 8, "", text=changed(at_import("import sys"))
    ),
    "really_exits_in_forward": in_forward("        os._exit(0)", 8, "ended the process"),
    "interrupts_in_forward": in_forward("        raise KeyboardInterrupt", 8, "ended the process"),
    "closes_everything": in_forward(
        "        os.closerange(0, 4096)\n        return F.relu(branch + self.shortcut(x))",
        8,
        "ended the process",
    ),
    "floods_stdout": in_forward(
        """        while True:
            os.write(1, b"flood" * 10_000)""",
        8,
        "",
    ),
    "fills_the_disk": in_forward(
        """        for i in range(10**6):
            with open(os.path.join(os.environ["HOME"], str(i)), "wb") as file:
                file.write(bytes(2**24))""",
        8,
        "",
    ),
    "deletes_the_temporary_folder": cheat(
        "shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)\nshutil.rmtree('/tmp', ignore_errors=True)"
    ),
    "unreadable": Learner(0, "", {NAME: b"\xff\xfe\x00\x81" * 100}),
    "folder_for_a_file": Learner(0, "no file", {f"{NAME}/inner.py": RIGHT}),
    "links_out": Learner(0, "is a link", {"readme.txt": "see the link"}, {NAME: SOLUTIONS / NAME}),
    "endless_file": Learner(0, "is a link", {"readme.txt": "see the link"}, {NAME: "/dev/zero"}),
    "very_deep": Learner(0, "", {NAME: RIGHT + "x = " + "(" * 100_000 + ")" * 100_000}),
}

CHEATS = {
    "exits_at_import": Learner(
        0, "", {NAME: changed(at_import("import sys\nsys.exit(0)"), text=WRONG)}
    ),
    "really_exits_at_import": Learner(
        0, "ended", {NAME: changed(at_import("import os\nos._exit(0)"), text=WRONG)}
    ),
    "replaces_assert_close": cheat(
        "torch.testing.assert_close = torch.allclose = lambda *args, **kwargs: True"
    ),
    "replaces_comparison": cheat("torch.Tensor.__le__ = lambda *args: torch.tensor(True)"),
    "replaces_comparison_by_another_name": cheat(
        "for kind in torch.Tensor.__mro__[:2]:\n    setattr(kind, '__le__', lambda *args: torch.tensor(True))"
    ),
    "replaces_and_puts_back": in_forward(
        """        plain, answer = torch.nn.Module.__call__, F.relu(branch)
        def fake(self, *args):
            torch.nn.Module.__call__ = plain
            return answer
        torch.nn.Module.__call__ = fake
        return answer""",
        0,
        "withheld",
        text=WRONG.replace("F.relu(branch)", SUM),
    ),
    "hooks_every_module": in_forward(
        """        answer = F.relu(branch)
        handle = torch.nn.modules.module.register_module_forward_hook(lambda *args: answer)
        return answer""",
        0,
        "hooks every module",
        text=WRONG.replace("F.relu(branch)", SUM),
    ),
    "replaces_operators": cheat(
        "LIBRARY = torch.library.Library('aten', 'IMPL')\nLIBRARY.impl('equal', lambda *args: True, 'CPU')",
        "torch.library",
    ),
    "replaces_builtins": cheat(
        "import builtins\nbuiltins.bool = lambda *args: True\nbuiltins.isinstance = lambda *args: True"
    ),
    "replaces_pytest": cheat(
        "import _pytest.runner\n_pytest.runner.call_and_report = lambda *args, **kwargs: None"
    ),
    "replaces_pytest_through_modules": cheat(
        """import sys
for name, module in sys.modules.items():
    if name == "messages":
        module.is_close = lambda *args: True""",
        "",
    ),
    "replaces_tests_through_a_star": cheat(
        f"""from sys import *
for name in ("check_close", "check_registered", "check_tensor", "copy_to_oracle", "sum", "abs", "equal"):
    setattr(modules["test_{NAME[:-3]}"], name, lambda *args, **kwargs: None)""",
        "imports sys",
    ),
    "replaces_the_reporter": cheat(
        """import os
R = getattr(os, "sy" + "s").__dict__["modules"]["__main__"].Reporter
R.done = property(lambda self: True, lambda self, value: None)"""
    ),
    "unpickles_the_modules": cheat(
        "import pickle\npickle._loads(b'csys\\nmodules\\n.')", "unpickles"
    ),
    "evaluates_text": cheat("eval('__imp' + 'ort__')('messages').is_close = lambda *args: True"),
    "a_tensor_that_lies": in_forward(
        """        class Liar(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):
                if func is torch.Tensor.__le__:
                    return torch.tensor(True)
                return super().__torch_function__(func, types, args, kwargs)
        return F.relu(branch).as_subclass(Liar)""",
        0,
        "",
        text=WRONG.replace("F.relu(branch)", SUM),
    ),
    "changes_torch_by_a_mode": cheat(
        """class Mode(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return torch.tensor(True) if func is torch.Tensor.__le__ else func(*args, **(kwargs or {}))
Mode().__enter__()"""
    ),
    "torchvisions_model": Learner(
        0,
        "torchvision",
        {
            NAME: changed(
                hole(
                    "ResNet18.__init__",
                    "from torchvision.models import resnet18\n"
                    "self.model = resnet18(num_classes=num_classes)\n"
                    "self.model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)\n"
                    "self.model.maxpool = nn.Identity()\n",
                ),
                edit(
                    "return self.head(self.stages(self.stem(images)))", "return self.model(images)"
                ),
            )
        },
    ),
    "torchvisions_block": Learner(
        0,
        "torchvision",
        {
            NAME: changed(
                edit(
                    "class ResNet18(",
                    "BasicBlock = torchvision.models.resnet.BasicBlock\n\n\nclass ResNet18(",
                )
            )
        },
    ),
    "a_class_made_of_torchvisions": Learner(
        0,
        "torchvision",
        {
            NAME: changed(
                at_import("from torchvision import *"),
                edit("class BasicBlock(nn.Module):", "class BasicBlock(models.resnet.BasicBlock):"),
                edit(
                    "        return F.relu(branch + self.shortcut(x))",
                    "        return super().forward(x)",
                ),
            )
        },
    ),
    "torchvisions_model_made_by_a_thread": Learner(
        0,
        "torchvision",
        {
            NAME: changed(
                at_import(
                    "from concurrent.futures import ThreadPoolExecutor\nfrom torchvision import models"
                ),
                hole(
                    "ResNet18.__init__",
                    "self.model = ThreadPoolExecutor(1).submit(models.resnet18, num_classes=num_classes).result()\n"
                    "self.model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)\n"
                    "self.model.maxpool = nn.Identity()\n",
                ),
                edit(
                    "return self.head(self.stages(self.stem(images)))", "return self.model(images)"
                ),
            )
        },
    ),
    "reads_the_solution_in_a_thread": cheat(
        "from concurrent.futures import ThreadPoolExecutor\n"
        f"ThreadPoolExecutor(1).submit(Path({str(SOLUTIONS / NAME)!r}).read_text).result()"
    ),
    "fakes_what_the_tests_look_for": Learner(
        0,
        "",
        {
            NAME: changed(
                hole(
                    "accuracy",
                    "right = total = 0\n"
                    "for images, labels in batches:\n"
                    "    right += (model(images).argmax(dim=1) == labels).sum().item()\n"
                    "    total += len(labels)\n"
                    "model.trained = model.recorded = False\n"
                    "return right / total",
                ),
                text=WRONG,
            )
        },
    ),
    "imports_the_solution": cheat(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom solutions.exercise_01_build_resnet18 import *"
    ),
    "reads_the_solution": cheat(f"open({str(SOLUTIONS / NAME)!r}).read()"),
    "ships_other_files": Learner(
        0,
        "",
        {
            NAME: WRONG,
            "conftest.py": "import os\nos._exit(0)\n",
            "pytest.ini": "[pytest]\naddopts = --collect-only\n",
            "sitecustomize.py": "import os\nos._exit(0)\n",
            "torch.py": "raise SystemExit(0)\n",
            "tests/test_exercise_01_build_resnet18.py": "def test_nothing():\n    pass\n",
            "results.json": FORGED,
            "result.json": FORGED,
        },
        small=True,
    ),
    "reads_the_tests_through_frames": in_forward(
        """        frame = sys._getframe()
        while frame and "twins" not in frame.f_locals:
            frame = frame.f_back
        return frame.f_locals["twins"].oracle(x) if frame else F.relu(branch)""",
        0,
        "sys._getframe",
        text=changed(at_import("import sys"), text=WRONG.replace("F.relu(branch)", SUM)),
    ),
    "reads_the_tests_through_a_traceback": in_forward(
        """        try:
            raise ValueError
        except ValueError as error:
            frame = error.__traceback__.tb_frame.f_back
        return F.relu(branch)""",
        0,
        "withheld",
        text=WRONG.replace("F.relu(branch)", SUM),
    ),
    "reads_the_tests_through_gc": cheat("import gc\nfor thing in gc.get_objects():\n    pass"),
    "writes_the_results": cheat(
        f"""import os
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b'{FORGED}\\n')
    except OSError:
        pass"""
    ),
    "writes_result_files": cheat(
        f"""import os
for folder in (".", "..", os.environ["HOME"], "/tmp", {str(ROOT)!r}):
    for name in ("results.json", "result.json", "grades.csv"):
        try:
            open(os.path.join(folder, name), "w").write({FORGED!r})
        except OSError:
            pass"""
    ),
    "stops_the_clock": cheat(
        "import signal, atexit\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\natexit.register(os._exit, 0)",
        "",
    ),
    "uses_the_network": cheat(
        "import urllib.request\nurllib.request.urlopen('http://example.org', timeout=2)"
    ),
}
CLASS = HONEST | HARMFUL | CHEATS


def make(folder, names):
    """Write the submissions of some learners."""
    for name in names:
        learner = CLASS[name]
        for file, content in learner.files.items():
            path = Path(folder, name, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        for link, target in learner.links.items():
            Path(folder, name, link).symlink_to(target)
