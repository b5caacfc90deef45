# What every scenario can use. E is the engine's command line, F flags that choose the runtime, I the image, C a name for the scenario's
# container, W an empty directory of its own.
set -u

e() { $E "$@"; }

# Runs a command and tells its status.
rc() {
    "$@"
    echo "[$?]"
}

# A container in the foreground that goes when it ends.
run() { e run --rm --name "$C" $F --network none "$@"; }

# One in the background.
up() { e run -d --name "$C" $F --network none "$@" >/dev/null; }

inspect() { e inspect -f "$1" "$C"; }

# Runs a command until it succeeds.
await() {
    local deadline=$((SECONDS + ${HUSK_PATIENCE:-120}))
    until "$@"; do
        if [ $SECONDS -gt $deadline ]; then
            echo "never: $*"
            exit 99
        fi
        sleep 0.05
    done
}

has_said() { e logs "$C" 2>&1 | grep -qF -- "$1"; }

is() { [ "$(inspect "$1")" = "$2" ]; }

# Waits until the container has written a text; until a field of it has a value.
says() { await has_said "$1"; }
becomes() { await is "$1" "$2"; }

# Runs a command line on a terminal of its own, whose input is ours; line ends as in a file. The end of the input is typed, too: whether
# that is shown depends on which of the two terminals is in which mode just then.
pty() {
    SHELL=/bin/bash script -qec "$(printf '%q ' "$@")" /dev/null | tr -d '\r\b' | sed 's/\^[@D]//g'
    return ${PIPESTATUS[0]}
}

# Runs a command where the networks are that the engine makes: what is the host for containers, and reaches nothing else.
host() { nsenter --net="$NETWORK" "$@"; }
# The same for a command in the background: $! is its own id.
at_host() { exec nsenter --net="$NETWORK" "$@"; }

# Runs in the background for as long as nobody ends it, on SIGTERM with status 5.
readonly WAITS='trap "echo bye; exit 5" TERM; echo up; while :; do sleep 0.05; done'
