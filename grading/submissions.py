"""Who handed in what: learners and their scripts, as people and learning platforms lay them out."""

import errno
import filecmp
import re
import tempfile
import zipfile
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

LARGEST = 2**20  # bytes of a script
THE_COURSES = ("solutions", "tests", "grading", "tools")  # folders of a clone
NOT_THEIRS = ("venv", "site-packages", "__MACOSX")
SCRIPT = re.compile(r"\.(py|py\.txt|ipynb|zip)$", re.IGNORECASE)
OTHER_ARCHIVES = r"rar|7z|tar|tar\.\w+|tgz"
OTHER_ARCHIVE = re.compile(rf"\.({OTHER_ARCHIVES})$", re.IGNORECASE)
ARCHIVE = re.compile(rf"\.(zip|{OTHER_ARCHIVES})$", re.IGNORECASE)
LEARNERS_FAULTS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)
NO_SCRIPT = re.compile(r"(?i)exercise[ _-]?\d[^.]*(\.(txt|docx?|pdf|odt|rtf|md|html?))?$")
LAYOUTS = [  # what a name at the top says; the first one that fits
    r"(?P<learner>.+_\d+)_assignsubmission_[a-z]+(_(?P<file>.*))?",  # Moodle
    r"(?P<learner>\d+)-\d+ - (?P<name>.+?) - "
    r"(?P<date>\w+ \d+, \d+ \d+ [AP]M)( - (?P<file>.*))?",  # Brightspace
    r"(?P<learner>.+)_attempt_(?P<date>\d{4}[-\d]+)(_(?P<file>.*)|\.txt)",  # Blackboard
    r"(?P<learner>.+?)(_LATE)?_(?P<name>\d{2,})_\d{3,}_(?P<file>.+)",  # Canvas
    r"(LATE_)?(?P<learner>anon_[0-9A-Za-z]+)_\d+_(?P<file>.+)",  # Canvas without names
    r"(?P<learner>.+?)[ _.-]?(?P<file>exercise[ _-]?\d.*)",
    rf"(?P<learner>.+?)\.(zip|{OTHER_ARCHIVES})",
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
        if path.name.startswith(".") or path.name in THE_COURSES + NOT_THEIRS:
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
    """A date in the order year, month, day; "" if its format is unknown.

    Brightspace writes Oct 5, 2025 115 PM, or Sept 30, 2025 1041 AM.
    """
    short = re.sub(r"^([A-Z][a-z]{2})\w*", r"\1", date)
    with_colon = re.sub(r"(\d\d) ([AP]M)$", r":\1 \2", short)
    try:
        return datetime.strptime(with_colon, "%b %d, %Y %I:%M %p").isoformat()
    except ValueError:
        return date if date[:1].isdecimal() else ""


def scripts_in(path, name, date, scratch, depth=0):
    """The scripts in a folder or zip file, or the one that a file is."""
    if path.is_symlink() or not (path.is_dir() or path.is_file()):
        problem = f"{name} is a link or no file: hand in the file itself"
        yield Script(name, path, depth, problem, date)
    elif path.is_dir():
        is_clone = Path(path, "tests").is_dir() or any(path.glob("exercise_0*.py"))
        for entry in sorted(path.iterdir()):
            is_the_courses = is_clone and entry.name in THE_COURSES
            if is_theirs(entry.name) and not is_the_courses:
                # In Teams a learner has a folder for each assignment, with one for each attempt.
                version = depth == 1 and re.fullmatch(r"Version (\d+)", entry.name)
                attempt = date + version[1].zfill(6) if version else date
                deeper = 0 if version else depth + 1
                yield from scripts_in(entry, entry.name, attempt, scratch, deeper)
    elif name.lower().endswith(".zip"):
        folder = Path(tempfile.mkdtemp(dir=scratch), Path(name).stem)
        folder.mkdir()
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    member.filename = member.filename.replace("\\", "/")  # of old Windows tools
                members = [member for member in archive.infolist() if is_handed_in(member)]
                sizes = [member.file_size for member in members]
                sizes += [path.stat().st_size for path in Path(scratch).rglob("*")]
                if sum(sizes) > 20 * LARGEST:
                    raise ValueError("with all else handed in, it holds more than 20 MB")
                archive.extractall(folder, members)
        except Exception as error:  # zlib, lzma and others raise their own
            if isinstance(error, OSError) and error.errno not in LEARNERS_FAULTS:
                raise
            yield Script(name, path, depth, f"{name} cannot be unpacked: {error}", date)
            return
        yield from scripts_in(folder, name, date, scratch, depth)
    elif OTHER_ARCHIVE.search(name):
        problem = f"{name} cannot be unpacked here: hand in the script itself, or a zip file"
        yield Script(name, path, depth, problem, date)
    elif SCRIPT.search(name):
        yield Script(name, path, depth, "", date)
    elif NO_SCRIPT.match(name):
        yield Script(name, path, depth, f"{name} is no .py file: hand in the script itself", date)


def is_theirs(name):
    """Whether a file or folder of this name may be a learner's own work."""
    return not name.startswith(".") and name not in NOT_THEIRS


def is_handed_in(member):
    """Whether to unpack a member of a zip file: what may be meant, in no folder passed over."""
    *folders, name = member.filename.split("/")
    return bool(SCRIPT.search(name) or NO_SCRIPT.match(name)) and all(map(is_theirs, folders))


def may_hold(script, pattern):
    """Whether a script of such a name may be in a file; archives further down hold data."""
    return pattern.match(script.name) or (script.depth < 2 and ARCHIVE.search(script.name))


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
    unread = [script for script in there if script.problem and may_hold(script, pattern)]
    if alone and len(every) == 1 and "exercise" not in every[0].name.lower():
        found = every

    def rank(script):
        name = script.name.lower()
        ending = (not name.endswith(".py"), name.endswith(".ipynb"))
        return script.name != wanted, ending, script.depth

    last = max((script.date for script in found), default="")
    found = sorted((script for script in found if script.date == last), key=rank)
    if not found:
        if unread:
            raise Refused(unread[0].problem)
        unclear = [s.name for s in every if not re.search(r"exercise[ _-]?\d", s.name, re.I)]
        return None, unclear[:4]
    first, *others = found
    for other in others:
        if rank(other) == rank(first) and not filecmp.cmp(first.path, other.path, shallow=False):
            names = [f"{script.path.parent.name}/{script.name}" for script in (first, other)]
            raise Refused(f"more than one file: {' and '.join(names)}")
    if first.name.lower().endswith(".ipynb"):
        raise Refused(f"{first.name} is a notebook: export it as a script, without ! or % lines")
    if first.path.stat().st_size > LARGEST:
        raise Refused(f"{first.name} is larger than {LARGEST >> 20} MB: that is no script")
    later = [script for script in unread if script.date > last]
    return first.path.read_bytes(), [script.name for script in (later + others)[:4]]
