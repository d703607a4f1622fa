# Run a script of grading/ where it sees nothing of this machine but what it needs:
#     sh sandbox.sh WAY SCRATCH COURSE SUBMISSION FOLDERS PYTHON SCRIPT ARGUMENT...
# WAY is bubblewrap, unshare, none, or the name of a container's image. COURSE is shown as /course,
# SUBMISSION as /submission, and Python's FOLDERS (one per line) as what they are, all read-only. What
# can be written to is /tmp and /dev/shm, 512 MB each, and gone afterwards. There is no network, and
# no process or socket of the host's. SCRATCH is an empty folder; for none, it is the home.
set -euf
way=$1
scratch=$2
course=$3
submission=$4
folders=$5
python=$6
script=$7
shift 7
IFS='
'
system="/usr
/bin
/sbin
/lib
/lib32
/lib64
/nix/store
/etc/alternatives
/etc/ld.so.cache
/sys/devices/system/cpu"
size=512m

show() { # SOURCE PLACE: below the new root, as it is now
    if [ -d "$1" ]; then
        mkdir -p "$scratch$2"
    else
        mkdir -p "$(dirname "$scratch$2")"
        : >"$scratch$2"
    fi
    mount --rbind "$1" "$scratch$2"
}

build_room() { # in namespaces of its own (unshare)
    mount -t tmpfs -o size=16m,mode=755,nosuid tmpfs "$scratch"
    mkdir -p "$scratch/proc" "$scratch/tmp" "$scratch/dev/shm" "$scratch/etc"
    mount -t tmpfs -o size=$size,mode=1777,nosuid,nodev tmpfs "$scratch/tmp"
    mount -t tmpfs -o size=$size,mode=1777,nosuid,nodev tmpfs "$scratch/dev/shm"
    mount -t proc -o nosuid,nodev,noexec proc "$scratch/proc"
    echo "learner:x:0:0::/tmp/home:/bin/sh" >"$scratch/etc/passwd"
    ln -s /proc/self/fd "$scratch/dev/fd"
    for device in null zero full random urandom; do
        show "/dev/$device" "/dev/$device"
    done
    for folder in $system $folders; do
        [ ! -e "$folder" ] || show "$folder" "$folder"
    done
    show "$course" /course
    show "$submission" /submission
    echo 0 2>/dev/null >"$scratch/proc/sys/user/max_user_namespaces" || true # no further one inside of this
    for name in sys irq bus fs sysrq-trigger; do
        [ ! -e "$scratch/proc/$name" ] || mount --bind "$scratch/proc/$name" "$scratch/proc/$name"
    done
    awk '{ print $5 }' /proc/self/mountinfo | while read -r place; do
        place=$(printf %b "$place") # it writes a space as \040
        case $place in
        "$scratch/tmp" | "$scratch/dev/shm" | "$scratch/proc") ;;
        "$scratch" | "$scratch"/*) mount -o remount,bind,ro "$place" ;;
        esac
    done
}

inside=/course
home=/tmp/home
seen=/submission
if [ "$way" = none ]; then
    inside=$course
    home=$scratch
    seen=$submission
fi
PATH=$PATH:/usr/sbin:/sbin
if [ "$way" = unshare ]; then
    exec unshare --user --map-root-user --net --ipc --uts --pid --mount --fork --kill-child \
        sh "$0" room "$scratch" "$course" "$submission" "$folders" "$python" "$script" "$@"
fi
case $script in
*.sh) program=sh ;;
*) program=python3 ;;
esac
set -- env -i LANG=C.UTF-8 USER=learner MPLBACKEND=Agg CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 \
    "PYTHONPATH=$(printf %s "$folders" | tr '\n' :)" \
    "COURSE=$inside" "SUBMISSION=$seen" "HOME=$home" "TMPDIR=$home" \
    "PATH=$(dirname "$python"):/usr/local/bin:/usr/bin:/bin" \
    "$program" "$inside/grading/$script" "$@"
ulimit -d 3145728 || true # 3 GB of memory for a process; macOS has no such limit
ulimit -f 524288          # 256 MB for a file
ulimit -c 0
echo 1000 2>/dev/null >/proc/self/oom_score_adj || true # rather this process than any other

case $way in
none)
    exec "$@"
    ;;
bubblewrap)
    set -- --ro-bind "$course" /course --ro-bind "$submission" /submission --remount-ro / \
        --chdir /tmp -- "$@"
    for folder in $system $folders; do
        [ ! -e "$folder" ] || set -- --ro-bind "$folder" "$folder" "$@"
    done
    exec bwrap --unshare-all --die-with-parent --new-session --as-pid-1 --cap-drop ALL \
        --proc /proc --dev /dev --size 536870912 --tmpfs /tmp --size 536870912 --tmpfs /dev/shm "$@"
    ;;
room)
    build_room
    cd "$scratch"
    pivot_root . .
    umount -l .
    cd /tmp
    # Everything is read-only, and stays so for whoever has no rights over mounts.
    exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all \
        --securebits=+noroot,+noroot_locked "$@"
    ;;
*)
    docker=docker
    command -v docker >/dev/null || docker=podman
    exec $docker run --rm -i --network=none --read-only --cap-drop=ALL --user=65534:65534 \
        --security-opt=no-new-privileges --security-opt=label=disable --pids-limit=256 --memory=6g --shm-size=$size \
        --ulimit=core=0 --ulimit=fsize=268435456 --ulimit=data=3221225472 --tmpfs=/tmp:size=$size,mode=1777,exec \
        --workdir=/tmp --volume="$course:/course:ro" --volume="$submission:/submission:ro" \
        "$way" "$@"
    ;;
esac
