"""Make the zip file that Gradescope takes as an autograder.

python tools/gradescope/make_zip.py autograder.zip                  all five exercises
python tools/gradescope/make_zip.py autograder.zip --exercises 1    one assignment's exercises
"""

import argparse
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from course import FILES  # noqa: E402

PARTS = (
    "requirements.txt",
    "pyproject.toml",
    "tests/*.py",
    "tools/*.py",
    "tools/*.sh",
    "solutions/*.py",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zip", type=Path, help="the file to write")
    parser.add_argument(
        "--exercises", nargs="+", choices=list(FILES), default=list(FILES), metavar="N"
    )
    args = parser.parse_args()
    with zipfile.ZipFile(args.zip, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("setup.sh", "run_autograder"):  # at the top, where Gradescope looks for them
            archive.write(ROOT / "tools" / "gradescope" / name, name)
        for pattern in PARTS:
            for path in sorted(ROOT.glob(pattern)):
                archive.write(path, path.relative_to(ROOT))
        archive.writestr(
            "exercises.txt", "".join(f"{number}\n" for number in sorted(set(args.exercises)))
        )
    print(
        f"{args.zip}: upload it in the assignment's settings, Configure Autograder, Zip file upload"
    )


if __name__ == "__main__":
    main()
