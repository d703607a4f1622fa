"""Who handed in what: learners and their scripts, as people and learning platforms lay them out."""

import re
import tempfile
import zipfile
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

LARGEST = 2**20  # bytes of a script
NOT_THEIRS = ("solutions", "tests", "grading", "tools", "venv", "site-packages", "__MACOSX")
SCRIPT = re.compile(r"\.(py|py\.txt|ipynb|zip)$", re.IGNORECASE)
OTHER_ARCHIVES = r"rar|7z|tar|tar\.\w+|tgz"
OTHER_ARCHIVE = re.compile(rf"\.({OTHER_ARCHIVES})$", re.IGNORECASE)
LAYOUTS = [  # what a name at the top says; the first one that fits
    r"(?P<learner>.+_\d+)_assignsubmission_[a-z]+(_(?P<file>.*))?",  # Moodle
    r"(?P<learner>\d+)-\d+ - (?P<name>.+?) - (?P<date>\w+ \d+, \d+ \d+ [AP]M)( - (?P<file>.*))?",
    r"(?P<learner>.+)_attempt_(?P<date>\d{4}[-\d]+)(_(?P<file>.*)|\.txt)",  # Blackboard
    r"(?P<learner>.+?)(_LATE)?_(?P<name>\d{2,})_\d{3,}_(?P<file>.+)",  # Canvas
    r"(?P<learner>.+?)[ _.-]?(?P<file>exercise[ _-]?\d.*)",
    rf"(?P<learner>.+?)(?P<file>\.(zip|{OTHER_ARCHIVES}))",
]
FOLDER_LAYOUTS = LAYOUTS[:2]  # any other folder has its learner's name


class Refused(Exception):
    """A hand-in that cannot be judged; the message says why."""


class Script(NamedTuple):
    """A file that may be a script of the course."""

    name: str  # as the learner named it
    path: Path
    depth: int  # in folders
    problem: str  # why it cannot be read, or ""
    date: str  # of the attempt, in an order that sorts; "" if nobody says


def find_learners(folder):
    """({learner: [(path, name, date), ...]}, the names of stray files)."""
    learners = {}
    strays = []
    for path in sorted(Path(folder).iterdir()):
        if path.name.startswith(".") or path.name in NOT_THEIRS:
            continue
        layouts = FOLDER_LAYOUTS if path.is_dir() else LAYOUTS
        matches = (re.fullmatch(layout, path.name, re.IGNORECASE) for layout in layouts)
        match = next(filter(None, matches), None)
        if match is None and not path.is_dir():
            strays.append(path.name)
            continue
        words = match.groupdict() if match else {"learner": path.name}
        learner = "_".join(filter(None, (words["learner"], words.get("name"))))
        place = (path, words.get("file") or path.name, sortable(words.get("date") or ""))
        learners.setdefault(learner, []).append(place)
    return learners, strays


def sortable(date):
    """A date in the order year, month, day: Brightspace writes Oct 5, 2025 115 PM."""
    with_colon = re.sub(r"(\d\d) ([AP]M)$", r":\1 \2", date)
    try:
        return datetime.strptime(with_colon, "%b %d, %Y %I:%M %p").isoformat()
    except ValueError:
        return date


def scripts_in(path, name, date, scratch, depth=0):
    """The scripts in a folder or zip file, or the one that a file is."""
    if path.is_symlink() or not (path.is_dir() or path.is_file()):
        problem = f"{name} is a link or no file: hand in the file itself"
        yield Script(name, path, depth, problem, date)
    elif path.is_dir():
        for entry in sorted(path.iterdir()):
            is_theirs = entry.name[0] != "." and entry.name not in NOT_THEIRS
            is_archive = depth == 0 and OTHER_ARCHIVE.search(entry.name)  # further down: data
            if is_theirs and (entry.is_dir() or SCRIPT.search(entry.name) or is_archive):
                yield from scripts_in(entry, entry.name, date, scratch, depth + 1)
    elif name.lower().endswith(".zip"):
        folder = tempfile.mkdtemp(dir=scratch)
        try:
            with zipfile.ZipFile(path) as archive:
                members = [m for m in archive.infolist() if SCRIPT.search(m.filename)]
                if sum(member.file_size for member in members) > 20 * LARGEST:
                    raise ValueError("it holds more than 20 MB of scripts")
                archive.extractall(folder, members)
        except OSError:
            raise
        except Exception as error:  # zlib, lzma and others raise their own
            yield Script(name, path, depth, f"{name} cannot be unpacked: {error}", date)
            return
        yield from scripts_in(Path(folder), name, date, scratch, depth)
    elif OTHER_ARCHIVE.search(name):
        problem = f"{name} cannot be unpacked here: hand in the script itself, or a zip file"
        yield Script(name, path, depth, problem, date)
    elif SCRIPT.search(name):
        yield Script(name, path, depth, "", date)


def choose(places, wanted, alone, scratch):
    """(the bytes of an exercise's script or None, the names of others that may have been meant).

    The last attempt counts; then the right name, then .py before .py.txt before .ipynb, then the
    outermost. alone: only this exercise is graded, so a single script is it, whatever its name.
    """
    number = int(wanted.split("_")[1])
    pattern = re.compile(rf"(?!test_).*exercise[ _-]?0?{number}(?!\d)", re.IGNORECASE)
    there = [script for place in places for script in scripts_in(*place, scratch)]
    every = [script for script in there if not script.problem]
    found = [script for script in every if pattern.match(script.name)]
    if alone and len(every) == 1 and "exercise" not in every[0].name.lower():
        found = every

    def rank(script):
        name = script.name.lower()
        is_notebook = name.endswith(".ipynb")
        return script.name != wanted, not name.endswith(".py"), is_notebook, script.depth

    last = max((script.date for script in found), default="")
    found = sorted((script for script in found if script.date == last), key=rank)
    if not found:
        for script in there:
            if script.problem:
                raise Refused(script.problem)
        unclear = [s.name for s in every if not re.search(r"exercise[ _-]?\d", s.name, re.I)]
        return None, unclear[:4]
    if len(found) > 1 and rank(found[0]) == rank(found[1]):
        raise Refused(f"more than one file: {found[0].name} and {found[1].name}")
    if found[0].name.lower().endswith(".ipynb"):
        raise Refused(f"{found[0].name} is a notebook: save and export it as an executable script")
    if found[0].path.stat().st_size > LARGEST:
        raise Refused(f"{found[0].name} is larger than {LARGEST >> 20} MB: that is no script")
    return found[0].path.read_bytes(), [script.name for script in found[1:]][:4]
