# What scenarios of containerd have: c (ctr in this runtime's namespace), run, exec_, a container's name in $ID.
# SOCK, STATE: containerd's socket and state directory; NS, R: namespace and runtime; W: a directory.
trap 'kill $(jobs -p) 2>/dev/null' EXIT
I=docker.io/library/husk-test:latest
c() { ctr --address "$SOCK" --namespace "$NS" "$@"; }
run() { c run --runtime "$R" "$@"; }
exec_() { c task exec --exec-id "$@"; }
# One that runs until it is told to end, as it can be at once.
serve() {
    run -d --mount "type=bind,src=$W,dst=/w,options=rbind:rw" "$I" "$ID" sh -c 'trap "exit 143" TERM; touch /w/up; while :; do sleep 0.05; done'
    await test -e "$W/up"
}
status() { c task ls | awk -v id="$1" '$1 == id { print $3 }'; }
pid() { c task ls | awk -v id="$1" '$1 == id { print $2 }'; }
# Waits until a command succeeds, or fails the scenario.
await() {
    for _ in $(seq ${TRIES:-1200}); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    echo "never: $*"
    exit 1
}
is() { [ "$(status "$1")" = "$2" ]; }
# Whether there is one process in it; whether events tell that it ran out of memory.
alone() { [ "$(c task metrics "$ID" | awk '$1 == "pids.current" { print $2 }')" = 1 ]; }
tells_oom() { grep " $NS /tasks/oom " "$W/events" | grep -qF "\"$1\""; }
gone() { [ -z "$(status "$1")" ]; }
ended() { [ "$(status "$1")" != RUNNING ]; }
finish() {
    c task kill -s KILL "$ID"
    await is "$ID" STOPPED
    c task rm "$ID" 2>/dev/null
    c container rm "$ID"
}
# Everything that is left of a container after a while, a line each: shims end by themselves.
left() {
    for _ in $(seq 600); do
        [ -z "$(traces "$1" | but)" ] && return
        sleep 0.05
    done
    traces "$1" | but
}
# Leaves out what a scenario does not look at.
but() { cat; }
traces() {
    local address
    address=/run/containerd/s/$(printf %s "$SOCK/$NS/$1" | sha256sum | cut -d' ' -f1)
    [ -e "$address" ] && echo "left: $address"
    pgrep -f -- "-namespace $NS -id $1 " >/dev/null && echo "left: a shim"
    grep -q "/$NS/$1/" /proc/self/mountinfo && echo "left: a mount"
    [ -n "$(find /sys/fs/cgroup -maxdepth 4 -type d -path "*/$NS/$1")" ] && echo "left: a control group"
    [ -e "$STATE/io.containerd.runtime.v2.task/$NS/$1" ] && echo "left: a bundle"
    [ -e "/run/containerd/husk/$NS/containers/$1" ] && echo "left: husk's state"
    return 0
}
clean() {
    for id in $(c container ls -q); do
        c task rm -f "$id"
        c container rm "$id"
    done
}
