"""Run the tests on one submission, and tell the judge, test by test, what came of it.

Not a command: tools/judge.py starts it, in a sandbox. It reads what to do, and the key that its messages are signed
with, from stdin, and writes its messages to a pipe. The submission runs in this very process, so that the tests can
look at what it computes. Guard keeps it from the tests and from torch's insides meanwhile, and says what it caught.
"""

import ast
import builtins
import contextlib
import hmac
import json
import os
import resource
import sys
import sysconfig
import threading
import weakref
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace

import numpy
import pytest
import torch
import torchvision.models
from torch.nn.modules import module as nn_module
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

OWN_CHECK = "own check"  # no name that can be written in a script
OWN_TESTS = {"__main__", "cifar10", "conftest", "diagnosis", "messages", "what_ran"}
FORBIDDEN = {  # what a script of this course has no use for, and a way into the tests
    *(
        "_operator",
        "_pytest",
        "builtins",
        "ctypes",
        "pkgutil",
        "pluggy",
        "pytest",
        "runpy",
        *OWN_TESTS,
    ),
}
INNER = {  # what modules hold that is otherwise harmless, and would lead a script anywhere
    "importlib": {
        "import_module",
        "reload",
        "__import__",
        "machinery",
        "util",
        "_bootstrap",
        "_bootstrap_external",
    },
    "operator": {"attrgetter", "methodcaller", "*"},
    "sys": {"modules", "_getframe", "*"},
    "unittest": {"mock", "*"},
}
UNPICKLED = {
    *FORBIDDEN,
    "sys",
    "os",
    "posix",
    "operator",
    "importlib",
    "subprocess",
    "socket",
    "inspect",
    "gc",
}
MOST, LONGEST = 20, 200  # sentences about one submission, characters of one
HARMLESS = {  # functions of Python's library that look at code or frames, and hand out neither
    *(
        "dataclass",
        "wrap",
        "make_dataclass",
        "signature",
        "get_type_hints",
        "register",
        "literal_eval",
    ),
    *(
        "print_exc",
        "format_exc",
        "print_exception",
        "format_exception",
        "print_tb",
        "format_tb",
        "getdoc",
    ),
    *(
        "exception",
        "error",
        "debug",
        "info",
        "warning",
        "critical",
        "log",
        "NamedTuple",
        "namedtuple",
        "__new__",
    ),
}
INSIDES = {  # attributes that lead out of one's own code
    *(
        "__globals__",
        "__code__",
        "__closure__",
        "__subclasses__",
        "__builtins__",
        "__loader__",
        "__spec__",
        "__self__",
    ),
    *(
        "f_back",
        "f_locals",
        "f_globals",
        "f_builtins",
        "tb_frame",
        "gi_frame",
        "cr_frame",
        "ag_frame",
    ),
}
OF_TYPES = {
    "__setattr__",
    "__delattr__",
    "__getattribute__",
}  # of object and type they reach everything
OPERATORS = {
    "__le__",
    "__lt__",
    "__ge__",
    "__gt__",
    "__eq__",
    "__ne__",
    "__bool__",
    "__call__",
    "__sub__",
    "__rsub__",
}
SLOTS = [getattr(kind, name) for kind in (object, type) for name in sorted(OF_TYPES)]
GUARDED = INSIDES | OF_TYPES | {"__dict__"}.union(*INNER.values())
HOLES = ("BasicBlock", "Bottleneck", "ResNet18")
COMPILE = (
    "dataclasses.py",
    "__init__.py",
    "enum.py",
    "<frozen importlib._bootstrap_external>",
)  # collections, too
MODULES = {
    "torch",
    "torchvision",
    "matplotlib",
    "numpy",
    "tqdm",
    "PIL",
    "mpl_toolkits",
} | sys.stdlib_module_names
STDLIB = (sysconfig.get_path("stdlib"), "<frozen ")
PACKAGES = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
LOOKS = (
    "sys._getframe",
    "sys._current_frames",
    "object.__getattr__",
    "object.__setattr__",
    "compile",
    "code.__new__",
)
READABLE = (
    sys.prefix,
    sys.base_prefix,
    *STDLIB,
    "/usr/",
    "/lib",
    "/etc/",
    "/dev/",
    "/sys/",
    "/proc/",
    "/opt/",
)
FRAMES = ("inspect.py", "traceback.py", "pdb.py", "bdb.py", "trace.py", "profile.py", "cProfile.py")
WATCHED = ("torch", "torchvision", "numpy", "pytest", "_pytest", "pluggy", "pytest_timeout")


def channel(descriptor, key):
    """The function that sends a message to the judge: a line of JSON, numbered and signed."""
    lock, count, write, sign, dumps = threading.Lock(), [0], os.write, hmac.digest, json.dumps

    def send(**message):
        with lock:
            line = dumps({"number": count[0], **message})
            count[0] += 1
            write(descriptor, f"{sign(key, line.encode(), 'sha256').hex()} {line}\n".encode())

    return send


class Guard:
    """Keeps a submission to its own affairs. Everything it catches is sent to the judge once, as a sentence."""

    def __init__(self, send, script, exercise, course, folders, observe=False):
        self.observe = observe  # only tell what there is to see, and forbid nothing
        self.send, self.script, self.exercise = send, str(script), exercise
        self.course, self.folders = course, folders  # not to be read; free to write in
        self.name, self.said, self.busy, self.lesson = (
            Path(script).stem,
            set(),
            threading.local(),
            None,
        )
        self.given, self.closed = None, set()  # its builtins; what nothing may be added to
        self.lent = weakref.WeakSet()  # the networks that the tests made

    def catch(self, sentence):
        """Tell the judge."""
        sentence = sentence[:LONGEST]
        if sentence not in self.said and len(self.said) < MOST:
            self.said.add(sentence)
            self.send(event="caught", what=sentence)

    def forbid(self, sentence, error):
        """Tell the judge, and stop what the submission is about to do."""
        self.catch(sentence)
        if not self.observe:
            raise error

    # --- whose doing is it? -----------------------------------------------------------------------------------------

    def callers(self):
        """The file names of the frames outside of this file, the innermost first."""
        frame = sys._getframe(1)
        while frame:
            if frame.f_code.co_filename != __file__:
                yield frame.f_code.co_filename
            frame = frame.f_back

    def harmless(self):
        """Whether the submission called a function of Python's library that is known to do no harm."""
        frame, inner = sys._getframe(1), None
        while frame and frame.f_code.co_filename not in (self.script, "<string>"):
            inner, frame = frame, frame.f_back
        return (
            bool(frame and inner)
            and inner.f_code.co_filename.startswith(STDLIB)
            and inner.f_code.co_name in HARMLESS
        )

    @contextlib.contextmanager
    def looking(self):
        """While this guard itself looks at frames, which is an event like any other."""
        self.busy.now = True
        try:
            yield
        finally:
            self.busy.now = False

    def mine(self, through=()):
        """Whether the submission's is the innermost frame outside of Python's library and of what is looked through."""
        for name in self.callers():
            of_package = name.startswith(PACKAGES)  # their folder may lie in the library's
            if not (name.startswith(through) if of_package else name.startswith(STDLIB)):
                return name in (self.script, "<string>")
        return (
            threading.current_thread() is not threading.main_thread()
        )  # a thread that nobody else has started

    # --- what the interpreter tells: Python's audit events ------------------------------------------------------------

    def audit(self, event, args):
        """An audit hook. It cannot be taken away again, and it stops what it forbids."""
        if getattr(self.busy, "now", False):
            return
        with self.looking():
            sentence = self.judge_event(event, args)
            if sentence and event in LOOKS:
                harmless = self.harmless()
            else:  # platform.py asks the system what machine this is
                harmless = sentence and any(
                    os.path.basename(name) == "platform.py" for name in self.callers()
                )
        if sentence and not harmless:
            self.forbid(sentence, PermissionError(f"{event} is not allowed while the tests run"))

    def judge_event(self, event, args):
        """What an event does wrong, or None."""
        family = event.partition(".")[0]
        if event in ("sys._getframe", "sys._current_frames", "object.__getattr__"):
            caller = next(self.callers())
            signature = (
                event == "object.__getattr__" and args[1] == "__code__"
            )  # as dataclasses look at it
            looks = caller == self.script or (
                os.path.basename(caller) in FRAMES and not signature and self.mine()
            )
            return "looks at the frames or the code of the tests" if looks else None
        if event in ("sys.settrace", "sys.setprofile", "sys.addaudithook") or family in (
            "gc",
            "ctypes",
        ):
            return f"uses {event} to look at what the tests do" if self.mine() else None
        if event == "compile" and os.path.basename(next(self.callers())) not in COMPILE:
            return "runs code that it made from text" if self.mine() else None
        if event == "pickle.find_class":
            led = args[0].partition(".")[0] in UNPICKLED or args[0].startswith("test_")
            return (
                f"unpickles {args[0]}.{args[1]}, a way into the tests"
                if led and self.mine()
                else None
            )
        if event in ("marshal.loads", "code.__new__", "function.__new__"):
            return (
                f"makes code while it runs ({event})"
                if next(self.callers()) == self.script
                else None
            )
        if event == "object.__setattr__" and args[1] in (
            "__code__",
            "__defaults__",
            "__kwdefaults__",
        ):
            name = getattr(args[0], "__qualname__", type(args[0]).__name__)
            return f"changes the code of {name}" if self.mine() else None
        if family == "subprocess" or event in (
            "os.fork",
            "os.forkpty",
            "os.system",
            "os.exec",
            "os.posix_spawn",
        ):
            return f"starts a process ({event})" if self.mine() else None
        if event in ("os.kill", "os.killpg", "signal.pthread_kill"):
            return "sends a signal to a process" if self.mine() else None
        if family == "socket" and event not in ("socket.__new__", "socket.gethostname"):
            return f"uses the network ({event})" if self.mine() else None
        if event == "open":
            return self.judge_path(
                args[0], bool(args[2] & (os.O_WRONLY | os.O_RDWR)) if args[2] else False
            )
        if event in (
            "os.remove",
            "os.rename",
            "os.rmdir",
            "os.link",
            "os.symlink",
            "os.truncate",
            "shutil.rmtree",
        ):
            return self.judge_path(args[0], True)
        return None

    def judge_path(self, path, writes):
        """What is wrong with opening a path, or None."""
        if isinstance(path, int):
            return (
                "opens a file descriptor that is not its own" if path > 2 and self.mine() else None
            )
        path = os.path.realpath(os.fsdecode(path))
        if path.startswith(self.course) and path != self.script:
            return f"opens {os.path.basename(path)} of the course" if self.mine() else None
        if not writes and not path.startswith(
            (*self.folders, *READABLE, *PACKAGES, os.path.dirname(self.script))
        ):
            return f"opens {path:.80}, which is none of its files" if self.mine() else None
        if path.startswith("/proc/"):
            return "looks into a process's memory or settings (/proc)" if self.mine() else None
        if writes and path != os.devnull and not path.startswith(self.folders):
            return "writes or deletes files outside of its own folder" if self.mine() else None
        return None

    # --- the submission's own code: guarded builtins and attributes -------------------------------------------------

    def loader(self, name, path):
        """The loader for the submission, in the place of Python's own; see the fixture lesson in tests/conftest.py."""
        guard = self

        class Loader(SourceFileLoader):
            def source_to_code(self, data, path, *, _optimization=-1):
                return compile(
                    Instrument().visit(ast.parse(data, path)), path, "exec", dont_inherit=True
                )

            def exec_module(self, module):
                guard.lesson, module.__builtins__ = module, guard.builtins()
                guard.given = dict(module.__builtins__)
                super().exec_module(module)
                guard.scan(module)

        return Loader(name, path)

    def builtins(self):
        """Python's builtins, with guards in the place of those that reach everything."""
        own, plain = self.own, builtins

        def guarded_import(name, globals=None, locals=None, fromlist=(), level=0):
            self.check_import(name, fromlist or ())
            return plain.__import__(name, globals, locals, fromlist, level)

        def forbidden(name):
            def guarded(*args, **kwargs):
                error = PermissionError(f"{name}() is not allowed while the tests run")
                self.forbid(f"calls {name}(), which can hide any code", error)
                return getattr(plain, name)(*args, **kwargs)

            return guarded

        guards = {
            OWN_CHECK: own,
            "__import__": guarded_import,
            "getattr": lambda value, name, *default: plain.getattr(
                own(value, name), name, *default
            ),
            "setattr": lambda value, name, new: plain.setattr(own(value, name, True), name, new),
            "delattr": lambda value, name: plain.delattr(own(value, name, True), name),
            "vars": lambda *value: plain.vars(
                *(own(v, "__dict__") for v in value or (self.lesson,))
            ),
            **{name: forbidden(name) for name in ("eval", "exec", "compile")},
            "breakpoint": no_breakpoint,
        }
        return vars(plain) | guards

    def check_import(self, name, fromlist):
        """Catch the import of something that a script of this course has no use for."""
        top = name.partition(".")[0]
        inside = INNER.get(top, set()) & {*name.split(".")[1:], *fromlist}
        if top in FORBIDDEN or top.startswith("test_") or inside:
            error = ImportError(f"importing {name} is not allowed while the tests run")
            self.forbid(f"imports {name}, a way into the tests", error)
        if top == "solutions" or top.startswith("exercise_0"):
            self.catch(f"imports {top} instead of answering")
        elif top not in MODULES and not self.observe:
            raise ModuleNotFoundError(
                f"No module named {top!r}: only torch, torchvision, matplotlib, numpy, tqdm and Python's own are there",
                name=top,
            )

    def own(self, value, name, stores=False):
        """The value, after a look at whether the submission may use (or set) its attribute of that name."""
        foreign = (isinstance(value, ModuleType) and value is not self.lesson) or (
            isinstance(value, type) and value.__module__ != self.name
        )
        kind = value.__name__ if isinstance(value, ModuleType | type) else type(value).__name__
        if value is sys and name == "modules" and not stores:  # to see whether this is Colab, say
            harmless = {
                n: m
                for n, m in sys.modules.items()
                if n.partition(".")[0] in MODULES - FORBIDDEN - {"sys"}
            }
            return SimpleNamespace(modules=harmless)
        if name == "__setattr__" and value is object:
            return SimpleNamespace(
                __setattr__=lambda it, part, new: object.__setattr__(
                    self.own(it, part, True), part, new
                )
            )
        inside = name in INSIDES or name in INNER.get(getattr(value, "__name__", None) or "", ())
        slot = name in OF_TYPES and isinstance(value, type) and getattr(value, name) in SLOTS
        if inside or (name == "__dict__" and foreign) or slot:
            error = PermissionError(f"reading {kind}.{name} is not allowed while the tests run")
            self.forbid(f"reads {kind}.{name}, a way into other people's code", error)
        package = (
            value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        ) or ""
        if (
            stores
            and foreign
            and package.partition(".")[0] in (*WATCHED, "builtins", "sys", "os", "json", "math")
        ):
            old = getattr(value, name, None)
            if not isinstance(old, int | float | str | None) or (
                old is None and isinstance(value, type)
            ):
                error = PermissionError(f"setting {kind}.{name} is not allowed while the tests run")
                self.forbid(f"replaces {kind}.{name}, which the tests rely on", error)
        return value

    def scan(self, module):
        """Catch other people's networks under the submission's names."""
        blocks = (
            torchvision.models.resnet.BasicBlock,
            torchvision.models.resnet.Bottleneck,
            torchvision.models.ResNet,
        )
        for name, value in vars(module).items() if self.exercise != "5" else ():
            if isinstance(value, type) and issubclass(value, blocks) and name in HOLES:
                self.catch(f"{name} is torchvision's own")
            elif (
                isinstance(value, type)
                and issubclass(value, blocks)
                and value.__module__ == self.name
            ):
                self.catch(f"{name} is made of torchvision's {value.__mro__[1].__name__}")

    # --- what is under way behind the tests' backs --------------------------------------------------------------------

    def watch_torch(self):
        """Tell when the submission itself makes torchvision's networks, or changes what torch's functions do."""
        resnet = torchvision.models.resnet
        if self.exercise != "5":
            for kind in (resnet.ResNet, resnet.BasicBlock, resnet.Bottleneck):
                sentence = f"uses torchvision's {kind.__name__} instead of its own"
                self.tell(kind, "__init__", sentence, lend=True)
                self.tell(kind, "forward", sentence)
        ways = tuple(
            os.path.join(os.path.dirname(torch.__file__), name)
            for name in ("library.py", "_library", "_custom")
        )
        self.tell(
            torch.library.Library,
            "__init__",
            "replaces torch's operators (torch.library)",
            through=ways,
        )
        self.tell(
            TorchFunctionMode,
            "__init__",
            "changes what torch's functions do (TorchFunctionMode)",
            own=True,
        )
        self.tell(
            TorchDispatchMode,
            "__init__",
            "changes what torch's operators do (TorchDispatchMode)",
            own=True,
        )
        if self.exercise != "3":
            for name in [name for name in vars(nn_module) if name.startswith("register_module_")]:
                self.tell(nn_module, name, f"hooks every module there is ({name})")

    def tell(self, place, name, sentence, own=False, through=PACKAGES, lend=False):
        """Wrap a function: caught, if the submission (or only, with own: an object of a class of its) calls it.

        lend: it makes an object; what the tests make they may hand to the submission, which may then call it.
        """
        plain = getattr(place, name)

        def watched(*args, **kwargs):
            with self.looking():
                theirs = bool(args) and type(args[0]).__module__ == self.name
                lent = bool(args) and args[0] in self.lent
                theirs = theirs or (not own and not lent and self.mine(through))
            if theirs:
                self.catch(sentence)
            elif lend:
                self.lent.add(args[0])
            return plain(*args, **kwargs)

        setattr(place, name, watched)

    def snapshot(self):
        """[(module or class, {name: value})] of what the tests stand on, and [(function, its code)]."""
        found, codes = {}, []
        places = [
            m for n, m in sys.modules.items() if n.partition(".")[0] in (*WATCHED, *FORBIDDEN)
        ]
        chosen = (
            torch,
            torch.nn,
            torch.nn.functional,
            torch.testing,
            torch.autograd,
            torch.linalg,
            torchvision.models,
        )
        places = [
            m
            for m in places
            if m in chosen or not m.__name__.startswith(("torch", "numpy", "ctypes"))
        ]
        tests = [
            m for n, m in sys.modules.items() if n.startswith("test_exercise_") or n in OWN_TESTS
        ]
        for module in tests:  # in these nothing changes, and nothing is added
            found[module] = dict(vars(module))
            for value in [value for value in found[module].values() if isinstance(value, type)]:
                if value.__module__ == module.__name__:
                    found[value] = dict(vars(value))
        self.closed = {place for place in found if place in tests or isinstance(place, type)}
        for module in [*places, numpy, builtins, nn_module, json, os, torchvision.models.resnet]:
            if module in found:
                continue
            found[module] = {name: value for name, value in vars(module).items() if callable(value)}
            for value in found[module].values():
                if isinstance(value, type) and value not in found:
                    found[value] = {
                        part: inner for part, inner in vars(value).items() if is_code(inner)
                    }
                elif isinstance(value, FunctionType):
                    codes.append((value, value.__code__))
        return list(found.items()), codes

    def check(self, before):
        """Catch what has changed since the snapshot, and what is left switched on."""
        places, codes = before
        for place, names in places:
            now = vars(place)
            added = set(now) - set(names) - {"_abc_impl"}
            for name in added if place in self.closed else [n for n in added if n in OPERATORS]:
                self.catch(
                    f"adds {name} to {getattr(place, '__name__', place)}, which the tests rely on"
                )
            for name, value in names.items():
                if now.get(name) is not value:
                    self.catch(
                        f"replaces {getattr(place, '__name__', place)}.{name}, which the tests rely on"
                    )
        for function, code in codes:
            if function.__code__ is not code:
                self.catch(
                    f"replaces the code of {function.__module__}.{function.__name__}, which the tests rely on"
                )
        if (
            self.lesson is not None
            and self.given is not None
            and vars(self.lesson)["__builtins__"] != self.given
        ):
            self.catch("changes the builtins that it was given")
        modes = [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]
        if any(
            type(mode) is not DeviceContext for mode in modes
        ):  # torch.set_default_device is harmless
            self.catch("changes what torch's functions do, and leaves it so")
        if any(
            vars(nn_module)[f"_global_{kind}_hooks"]
            for kind in ("forward", "forward_pre", "backward")
        ):
            self.catch("leaves a hook on every module there is")


def is_code(value):
    """Whether a value in a class does something: a method, a property, and the like."""
    return callable(value) or hasattr(type(value), "__get__")


def no_breakpoint(*args, **kwargs):
    """What breakpoint() does while the tests run."""
    raise RuntimeError("breakpoint() is left in the code")


class Instrument(ast.NodeTransformer):
    """Put own(value, name) around the value of every attribute that a script sets, or that leads out of it."""

    def visit_Attribute(self, node):
        self.generic_visit(node)
        stores = not isinstance(node.ctx, ast.Load)
        if stores or node.attr in GUARDED:
            check = ast.Call(
                ast.Name(OWN_CHECK, ast.Load()), [node.value, ast.Constant(node.attr)], []
            )
            check.args += [ast.Constant(True)] * stores
            node.value = ast.copy_location(check, node.value)
            ast.fix_missing_locations(node)
        return node

    def visit_MatchClass(self, node):
        """case Kind(attribute=name) reads attributes, too: refuse those that lead out."""
        self.generic_visit(node)
        inside = INSIDES & set(node.kwd_attrs)
        if inside:
            raise SyntaxError(
                f"a pattern that reads {min(inside)} is not allowed while the tests run"
            )
        return node

    def visit_Name(self, node):
        if node.id not in ("__builtins__", "__loader__", "__spec__"):
            return node
        return self.visit_Attribute(
            ast.copy_location(ast.Attribute(ast.Constant(0), node.id, node.ctx), node)
        )


class Reporter:
    """A pytest plugin: tells the judge which tests there are, which one runs, and what came of it."""

    def __init__(self, send, guard, skip, seconds):
        self.send, self.guard, self.skip, self.seconds = send, guard, skip, seconds
        self.tasks, self.slow, self.lost = (
            {},
            {},
            bool(skip),
        )  # {test: task}, {task: message}, whether one failed
        self.limits = {}  # {test: seconds}
        self.failures, self.done, self.before, self.skippable = [], False, None, set()

    def pytest_collection_modifyitems(self, config, items):
        self.tasks = {item.nodeid: task_of(item) for item in items}
        self.skippable = {item.nodeid for item in items if item.get_closest_marker("skipif")}
        left = [item for item in items if item.nodeid not in self.skip]
        usual = float(config.getini("timeout"))
        for item in items:  # what takes longer by nature may take longer here, too
            own = item.get_closest_marker("timeout")
            self.limits[item.nodeid] = self.seconds * (own.args[0] / usual if own else 1)
            item.add_marker(pytest.mark.timeout(self.limits[item.nodeid]), append=False)
        self.send(event="collected", tests=self.tasks)
        config.hook.pytest_deselected(items=[item for item in items if item not in left])
        items[:] = left

    def pytest_runtestloop(self, session):
        self.guard.watch_torch()
        self.before = self.guard.snapshot()
        sys.addaudithook(self.guard.audit)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        """Spend no more time on a task once one of its tests took too long, nor on a script that is not all right."""
        message = self.slow.get(task_of(item))
        if task_of(item) == "script" and self.lost:
            message = "was not run: it needs every task"
        if message is None:
            return None
        self.send(event="start", test=item.nodeid)
        self.send(event="result", test=item.nodeid, passed=False, message=message)
        return True

    def pytest_runtest_logstart(self, nodeid):
        self.failures, self.done = [], False
        self.send(event="start", test=nodeid, seconds=self.limits[nodeid])

    def pytest_runtest_logreport(self, report):
        skipped = (
            report.outcome == "skipped" and report.nodeid in self.skippable
        )  # by us, not by the submission
        self.done |= skipped or (report.when == "call" and report.outcome == "passed")
        if report.failed:
            self.failures.append(str(report.longrepr)[:3000])
            self.lost = True
        if report.failed and report.duration > 0.9 * self.limits[report.nodeid]:
            self.slow[self.tasks[report.nodeid]] = self.failures[0]

    def pytest_runtest_logfinish(self, nodeid):
        self.guard.check(self.before)
        message = (
            self.failures[0] if self.failures else "" if self.done else "did not come to its end"
        )
        self.send(
            event="result", test=nodeid, passed=self.done and not self.failures, message=message
        )


def task_of(item):
    """The task that a test judges. A run of the whole script needs every task, so it judges none of them."""
    return (
        "script"
        if item.originalname.startswith("test_script_")
        else item.get_closest_marker("task").args[0]
    )


def end_with_judge(lifeline):
    """End this process, and with it the sandbox, when the judge is gone."""
    os.read(lifeline, 1)
    os._exit(1)


def limit(gigabytes):
    """Limits that hold for this process and all that it starts."""
    size = int(gigabytes * 2**30)
    limits = {
        "RLIMIT_DATA": size,
        "RLIMIT_FSIZE": 2**28,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 512,
        "RLIMIT_CPU": 1200,
    }
    for name, value in limits.items():
        hard = resource.getrlimit(getattr(resource, name))[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):  # a system that has no such limit
            resource.setrlimit(getattr(resource, name), (value, value))


def main():
    job = json.loads(sys.stdin.readline())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    send = channel(job["channel"], bytes.fromhex(job["key"]))
    os.set_inheritable(job["channel"], False)
    threading.Thread(target=end_with_judge, args=[job["lifeline"]], daemon=True).start()
    script, course, home = Path(job["script"]), job["course"], os.environ["HOME"]
    guard = Guard(
        send,
        script,
        job["exercise"],
        (course, *job["hidden"]),
        (home, os.environ["TMPDIR"]),
        job["observe"],
    )
    limit(job["gigabytes"])
    torch.set_num_threads(1)
    os.chdir(home)

    class Settings:  # a plugin of its own, so that tests/conftest.py finds the loader
        def pytest_configure(self, config):
            config.lesson_loader = guard.loader

    flags = ["-q", "-s", "-p", "no:cacheprovider", "-W", "ignore", "-o", "addopts="]
    flags += [
        f"-c{course}/pyproject.toml",
        f"--rootdir={course}",
        f"--basetemp={home}/tests",
        f"--target={script.parent}",
    ]
    reporter = Reporter(send, guard, set(job["skip"]), job["seconds"])
    status = pytest.main(
        [*flags, f"{course}/tests/test_{script.name}"], plugins=[Settings(), reporter]
    )
    if status in (0, 1):  # any other: the submission has stopped pytest
        send(event="end")
    os._exit(status)


if __name__ == "__main__":
    main()
