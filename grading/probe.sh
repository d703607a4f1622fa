# Look for a way out of the sandbox, and print "sealed" if there is none: probe.sh HOST HOME
# HOST is a folder that only the host has; HOME is the home of whoever grades.
mkdir -p "$HOME"
found=

wrong() { # MESSAGE: what the command before it has found
    echo "$1"
    found=yes
}

[ "$$" != 1 ] && wrong "other processes are seen"
[ -e "$1" ] && wrong "files of the host are seen"
[ "$(wc -l </proc/net/unix)" -gt 1 ] && wrong "sockets of the host are seen"
[ "$(wc -l </proc/net/route)" -gt 1 ] && wrong "a network is seen"
for place in "$2" / /usr /etc /proc/sys "$COURSE" "$SUBMISSION"; do
    (: >"$place/probe") 2>/dev/null && wrong "$place can be written to"
done
for place in "$HOME" /tmp /dev/shm; do
    (: >"$place/probe") 2>/dev/null || wrong "$place cannot be written to"
done
[ -n "$found" ] || echo sealed
