# Look for a way out of the sandbox, and print "sealed" if there is none: probe.sh HOST HOME PORT
# HOST is a folder of the host's, with a socket in it; HOME is one; somebody listens at PORT (hex).
host=$1
home=$2
port=$3
mkdir -p "$HOME"

wrong() { # MESSAGE: what the command before it has found
    echo "$1"
    found=yes
}

found=
[ "$$" != 1 ] && wrong "other processes are seen"
[ -e "$host" ] && wrong "files of the host are seen"
grep -q "$host/socket" /proc/net/unix && wrong "sockets of the host are seen"
grep -q ":$port" /proc/net/tcp && wrong "the network of the host is seen"
for place in "$home" / /usr /etc /proc/sys "$COURSE" "$SUBMISSION"; do
    (: >"$place/probe") 2>/dev/null && wrong "$place can be written to"
done
for place in "$HOME" /tmp /dev/shm; do
    (: >"$place/probe") 2>/dev/null || wrong "$place cannot be written to"
done
[ -n "$found" ] || echo sealed
