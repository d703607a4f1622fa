"""A made class for grading/grade.py: honest files in the habits of students, vandals, and cheats.

Everybody hands in exercise 1. A learner has a file, the points it deserves, and words that must
stand in grades.csv's status or in review.txt; None means that review.txt must not name the file.
"""

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent / "variants"))
from changes import SOLUTIONS, edit, hole

NAME = "exercise_01_build_resnet18.py"
RIGHT = (SOLUTIONS / NAME).read_text("utf-8")
STUB = (SOLUTIONS.parent / NAME).read_text("utf-8")
ADDITION = "        return F.relu(branch + self.shortcut(x))"
ALL = 20
TASK_1_3 = 4
TASK_1_4 = 4


class Learner(NamedTuple):
    """What somebody hands in: a text or bytes, and what the grader must make of it."""

    file: object
    points: float
    status: str = "ok"
    look: str | None = None
    name: str = NAME


def at_import(code, text=RIGHT):
    """A script that runs code when it is imported."""
    return edit("\nEXERCISE = ", f"\n{code}\n\nEXERCISE = ")(text)


def at_end(code):
    """A right script with more code at its end."""
    return f"{RIGHT}\n{code}\n"


def in_main(code):
    """A right script that does something when it is run as a command."""
    return at_end(f'if __name__ == "__main__":\n    {code}')


def in_forward(code, text=RIGHT):
    """A script whose BasicBlock runs code in the place of its last line."""
    lines = "".join(f"        {line}\n" for line in code.splitlines())
    return edit(f"{ADDITION}\n", lines)(text)


WRONG = RIGHT
for change in (
    edit(ADDITION, "        return F.relu(branch)"),
    edit("nn.Sequential(projection, nn.BatchNorm2d(out_channels))", "projection"),
    hole("accuracy", "return 1.0"),
):
    WRONG = change(WRONG)


# Honest files: all points, and nothing to look at but where the list says why

SETTINGS = """@dataclass(frozen=True)
class Settings:
    width: int = 64
    names: tuple[str, ...] = ("a", "b")

    def __post_init__(self):
        object.__setattr__(self, "width", self.width * 2)


print(Settings())"""
LOADER = """def batches_of(dataset: "torch.utils.data.Dataset", size: int = 32):
    return torch.utils.data.DataLoader(dataset, size, num_workers=2)


LOADED = list(batches_of(torch.utils.data.TensorDataset(torch.arange(64.0)), 32))"""
COMPARE = """def compare():
    theirs = torchvision.models.resnet18(num_classes=10)
    print(sum(p.numel() for p in theirs.parameters()))"""
OWN_TESTS = """import unittest


class BlockTest(unittest.TestCase):
    def test_shape(self):
        self.assertEqual(BasicBlock(4, 8, 2)(torch.zeros(2, 4, 6, 6)).shape, (2, 8, 3, 3))


def test_accuracy():
    assert accuracy(nn.Identity(), [(torch.eye(2), torch.arange(2))]) == 1"""
OPTIONAL = """try:
    import wandb
except ImportError:
    wandb = None"""
SEQUENTIAL = """class Normed(nn.Sequential):
    def __init__(self, *layers):
        super().__init__(*layers, nn.ReLU())

    def __repr__(self):
        return f"{self.__class__.__name__} of {len(self)}\""""
COMPILE = """@torch.compile
def double(x):
    return 2 * x


try:
    double(torch.ones(2))
except Exception as error:
    print("no compiler here:", type(error).__name__)"""
WALRUS = "if (count := torch.get_num_threads()) > 0:\n    print(f'{count=}')"
ACCURACY = """images_seen: int = 0
hits = torch.zeros((), dtype=torch.long)
model.eval()
with torch.inference_mode():
    for x, y in tqdm(batches):
        hits += (model(x).argmax(1) == y).sum()
        images_seen += y.numel()
return (hits / images_seen).item()"""
BLOCK = "\n        ".join(
    [
        "y = self.shortcut(x)",
        "branch += y",
        "assert branch.shape == y.shape",
        "return F.relu(branch)",
    ]
)
HONEST = {
    "as_it_is": RIGHT,
    "backends": at_import("torch.backends.cudnn.benchmark = True"),
    "block_in_place": edit(ADDITION, f"        {BLOCK}")(RIGHT),
    "bom": RIGHT.encode("utf-8-sig"),
    "carriage_returns": RIGHT.replace("\n", "\r\n").encode(),
    "changes_folder": at_import("import tempfile\nos.chdir(tempfile.gettempdir())"),
    "colab": at_import("if os.environ.get('COLAB_GPU'):\n    print('in Colab')"),
    "compares_in_a_helper": (at_end(COMPARE), "torchvision.models"),
    "compares_in_main": in_main("torchvision.models.resnet18()"),
    "copies": at_import("import copy\ncopy.deepcopy(nn.Linear(2, 2))"),
    "dataclass": at_import(SETTINGS),
    "data_loader_with_workers": at_end(LOADER),
    "device": at_import("DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'"),
    "enum_and_typing": at_import(
        "from enum import Enum\nfrom typing import Any\nStage = Enum('S', 'A B')"
    ),
    "environment": at_import("os.environ['KMP_DUPLICATE_LIB_OK'] = 'TRUE'"),
    "interaction_in_main": in_main("input('press Enter')"),
    "latin": f"# coding: latin-1\n# caf\xe9\n{RIGHT}".encode("latin-1", "xmlcharrefreplace"),
    "logging": at_import("import logging\nlogging.basicConfig(level=10)\nlogging.info('hello')"),
    "matplotlib": at_import("import matplotlib.pyplot as plt\nplt.rcParams['font.size'] = 9"),
    "notebook_marks": edit("# %% Your part", "# In[3]:\n\n# %% Your part")(RIGHT),
    "numpy_seed": at_import("import random\nimport numpy as np\nrandom.seed(0)\nnp.random.seed(0)"),
    "optional_package": at_import(OPTIONAL),
    "own_accuracy": hole("accuracy", ACCURACY)(RIGHT),
    "own_tests": at_end(OWN_TESTS),
    "prints": in_forward(f"print('x' * 10_000)\n{ADDITION.strip()}"),
    "processes_in_main": in_main("import multiprocessing as mp; mp.Pool(2)"),
    "reads_a_file_in_main": in_main("print(open('notes.txt').read())"),
    "recursion_limit": at_import("sys.setrecursionlimit(5000)"),
    "seeds": at_import("torch.manual_seed(1)\ntorch.use_deterministic_algorithms(False)"),
    "sequential": at_end(SEQUENTIAL),
    "tabs": at_end("def triple(x):\n\treturn 3 * x"),
    "threads": at_import("torch.set_num_threads(1)"),
    "times_itself": at_import("import timeit\nprint(timeit.timeit('1 + 1', number=10))"),
    "torch_compile": at_end(COMPILE),
    "walrus": at_import(WALRUS),
    "warnings": at_import("import warnings\nwarnings.filterwarnings('ignore')"),
}


# Vandals and broken files: they lose the tasks that they break, and nobody else loses anything

FORK = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
FILL = """for i in range(10**6):
    with open(os.path.join(os.environ["HOME"], str(i)), "wb") as file:
        file.write(bytes(2**24))"""
STUBBORN = """while True:
    try:
        while True:
            pass
    except BaseException:
        pass"""
LEAVES = "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)"
AFTER_1_1 = TASK_1_3 + TASK_1_4  # what is left to somebody whose block does harm
VANDALS = {
    "aborts": (in_forward("os.abort()"), AFTER_1_1, "Aborted"),
    "closes_everything": (in_forward("os.closerange(0, 4096)"), AFTER_1_1, "ended Python"),
    "exits": (in_forward("sys.exit(0)"), AFTER_1_1, "ok"),
    "exits_at_import": (at_import("sys.exit(0)"), 0, "cannot be imported"),
    "fills_the_disk": (in_forward(FILL), AFTER_1_1, "ok"),
    "floods": (in_forward("while True:\n    os.write(1, bytes(10**6))"), AFTER_1_1, "took longer"),
    "forks": (at_import(FORK), 0, "stopped"),
    "hangs": (in_forward("time.sleep(10_000)"), AFTER_1_1, "took longer"),
    "hangs_stubbornly": (in_forward(STUBBORN), AFTER_1_1, "took longer"),
    "hoards_memory": (in_forward("x = [bytearray(2**28) for _ in range(99)]"), AFTER_1_1, "ok"),
    "kills_everybody": (
        in_forward("os.kill(-1, 9)\nos.kill(1, 9)\nos.kill(os.getpid(), 9)"),
        AFTER_1_1,
        "ok",
    ),
    "leaves_processes": (at_import(LEAVES), ALL, "ok"),
    "pauses": (in_forward(f"os.kill(os.getpid(), 19)\n{ADDITION.strip()}"), ALL, "ok"),
    "ends_itself": (in_forward("os.kill(os.getpid(), 15)"), AFTER_1_1, "Terminated"),
    "really_exits": (in_forward("os._exit(0)"), AFTER_1_1, "exit status 0"),
    "really_exits_at_import": (at_import("os._exit(0)"), 0, "exit status 0"),
    "removes_everything": (at_import("import shutil\nshutil.rmtree('/', True)"), ALL - 6, "ok"),
    "writes_to_the_judge": (at_import("print(file=open('/proc/1/fd/0', 'w'))"), ALL, "ok"),
    "broken_bytes": (b"\xff\xfe\x00\x81" * 100, 0, "cannot be imported"),
    "broken_syntax": (f"{RIGHT}\ndef (:\n", 0, "cannot be imported"),
    "missing_package": (at_import("import no_such_package"), 0, "cannot be imported"),
    "too_deep": (f"{RIGHT}\nx = {'(' * 9999}{')' * 9999}\n", 0, "cannot be imported"),
    "untouched": (STUB, 0, "ok"),
    "wrong": (WRONG, 0, "ok"),
    "wrong_in_one_task": (hole("accuracy", "return 1.0")(RIGHT), ALL - TASK_1_4, "ok"),
}


# Cheats: whatever points they get, an instructor is told where to look

CHEATS = {
    "code_from_text": ("eval('__imp' + 'ort__')('messages').is_close = print", "eval"),
    "forged_messages": ("for n in range(3, 50):\n    os.write(n, b'{}')", "os.write"),
    "frames": ("sys._getframe().f_back.f_locals", "sys._getframe"),
    "garbage_collector": ("import gc\ngc.get_objects()", "gc.get_objects"),
    "late_exit": ("import atexit\natexit.register(os._exit, 0)", "atexit.register"),
    "modules": ("sys.modules['messages'].is_close = lambda *args: True", "sys.modules"),
    "network": (
        "try:\n    socket.create_connection(('10.0.0.1', 1))\nexcept OSError:\n    pass",
        "socket",
    ),
    "new_equal": ("torch.Tensor.__eq__ = lambda *args: torch.tensor(True)", "torch.Tensor.__eq__"),
    "pytest_hook": ("import _pytest.runner as r\nr.call_and_report = print", "_pytest"),
    "ready_made": (
        "from torchvision.models.resnet import BasicBlock as Theirs",
        "torchvision.models",
    ),
    "solutions": ("try:\n    open('/solutions/x')\nexcept OSError:\n    pass", "open"),
    "table_of_answers": (f"ANSWERS = {[n / 7 for n in range(60)]}", "table of 60"),
    "watching_thread": ("import threading\nthreading.Thread(target=print).start()", "threading"),
}


def make_class():
    """{name: Learner} of everybody."""
    everybody = {}
    for name, file in HONEST.items():
        file, look = file if isinstance(file, tuple) else (file, None)
        everybody[f"honest_{name}"] = Learner(file, ALL, look=look)
    for name, (file, points, status) in VANDALS.items():
        everybody[f"vandal_{name}"] = Learner(file, points, status, look="")
    for name, (code, look) in CHEATS.items():
        everybody[f"cheat_{name}"] = Learner(at_import(code, WRONG), 0, "", look)
    return everybody


def write(folder, learners):
    """Write submissions: a folder for each learner."""
    for name, learner in learners.items():
        place = Path(folder, name, learner.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        file = learner.file
        place.write_bytes(file if isinstance(file, bytes) else file.encode())
