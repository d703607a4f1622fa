"""Python processes that start at once, for tests that start many: torch is imported beforehand.

run() is what subprocess.run is, for Python; run as a script this file is the server that forks.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

PREPARED = ("torch", "torchvision", "torchvision.models", "matplotlib.pyplot", "pytest", "tqdm")


class Server:
    """A process that has imported all that takes long, and forks for each job."""

    def __init__(self):
        self.process = None

    def run(self, job):
        """Returns the exit status of a job; see become."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            )
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            status = self.process.stdout.readline()
            if not status:
                raise RuntimeError("the server of tests/warm.py has died; its stderr says why")
            return int(status)
        except BaseException:  # such as pytest-timeout's: the job must not go on
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(OSError, ValueError):
                self.process.communicate()
            self.process = None
            raise


SERVER = Server()


def run(arguments, cwd):
    """Run Python with arguments, [script, flag, ...] or ["-m", module, flag, ...], in a folder.

    Returns a subprocess.CompletedProcess. Variables that Python or torch reads when it starts, such
    as PYTHONHASHSEED, have the server's values.
    """
    arguments = [str(argument) for argument in arguments]
    if sys.platform != "linux":  # elsewhere a fork is slow, unsafe or missing
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder, "stdout"), Path(folder, "stderr")]
        job = {"arguments": arguments, "cwd": str(cwd), "environment": dict(os.environ)}
        status = SERVER.run({**job, "printed": [str(path) for path in printed]})
        texts = [path.read_text("utf-8") for path in printed]
    return subprocess.CompletedProcess(arguments, status, *texts)


def become(arguments, cwd, environment, printed):
    """Do what Python does with these arguments. Ends this process."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, path in enumerate(printed, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        script = os.path.abspath(arguments[0])
        sys.path[0] = os.path.dirname(script)
        runpy.run_path(script, run_name="__main__")


def serve():
    """Read jobs from stdin, a line each; write the exit status of each."""
    for module in PREPARED:
        importlib.import_module(module)
    gc.freeze()  # or a child's collector would touch, and so copy, every page that they share
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(**json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
