# Run a command with nothing but a small folder to write in: sandbox.sh FOLDER COMMAND...
# tools/judge.py starts it in namespaces of its own (unshare), in which it may mount; the command itself may not.
set -e
folder=$1
shift
mount -t tmpfs -o size=512m,mode=700 tmpfs "$folder"
awk '{ print $5 }' /proc/self/mountinfo | while read -r place; do
    [ "$place" = "$folder" ] || mount -o remount,bind,ro "$place" 2>/dev/null || true # what is not ours stays as it is
done
exec unshare --user "$@"
