#!/usr/bin/env bash
# Make the zip file that Gradescope takes as an autograder:
#     bash grading/gradescope/make_zip.sh autograder.zip 1 2      for exercises 1 and 2
set -euo pipefail
folder=$(cd "$(dirname "$1")" && pwd)
zip=$folder/$(basename "$1")
shift
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r requirements.txt pyproject.toml exercise_0*.py solutions grading "$work"
mkdir "$work/tests"
cp tests/*.py "$work/tests"
cp grading/gradescope/{setup.sh,run_autograder} "$work" # where Gradescope looks for them
echo "$*" >"$work/exercises.txt"
cd "$work"
rm -f "$zip"
python3 -m zipfile -c "$zip" ./*
echo "$zip: upload it in the assignment's settings, Configure Autograder, Zip file upload"
