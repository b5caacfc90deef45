//! The shell's own language.

use super::{Input, Script};

pub(super) const SCRIPTS: &[Script] = &[
    Script::new("here documents", "x=5; cat <<E\nvalue $x and $(echo sub)\nE\ncat <<'E'\nliteral $x\nE\ncat <<-E\n\tindented\n\tE\nwc -c <<E | cat\n$(seq 2000)\nE"),
    Script::new("command substitution", "x=$(echo a; echo b); echo \"$x\"; echo $(echo $(echo deep)); echo `echo old`; x=$(false); echo $?; n=$(seq 20000 | wc -c); echo $n; x=$(seq 20000); echo ${#x}").smoke(),
    Script::new("subshells keep to themselves", "x=1; (x=2; cd /etc; umask 0; echo $x); echo $x; pwd; umask; { x=3; cd /etc; }; echo $x; pwd; (exit 5); echo $?; (trap 'echo bye' EXIT); echo z"),
    Script::new("loops", "for i in a b c; do for j in 1 2 3; do test $j = 2 && continue; echo $i$j; test $i$j = b3 && break 2; done; done; i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo $i; done | paste -s -d,; until [ $i -le 0 ]; do i=$((i-1)); done; echo $i"),
    Script::new("functions and recursion", "f() { local x=$1; [ $x -le 1 ] && { echo 1; return; }; echo $((x * $(f $((x-1))))); }; f 10; g() { return 9; }; g; echo $?; h() { echo $# \"$@\"; shift; echo $1; }; h a 'b c' d").smoke(),
    Script::new("case patterns", "for w in apple banana cherry 42 '' /a/b; do case $w in a*) echo A;; *an*) echo B;; [0-9]*) echo N;; '') echo empty;; */*) echo path;; *) echo other;; esac; done"),
    Script::new("parameter expansion", "p=/usr/local/file.tar.gz; echo ${p##*/} ${p%/*} ${p%.*} ${p%%.*} ${p#*/}; unset u; echo ${u:-default} ${u:=set} $u ${#p}; echo ${p:5:5} ${p/local/LOCAL}; echo ${nope:?is missing}; echo not reached"),
    Script::new("arithmetic", "echo $((7/2)) $((-7/2)) $((7%3)) $((1<<40)) $((0x1f)) $((010)) $((5>3&&2>1)) $((~5)) $((2**10)); x=5; echo $((x+=3)) $((x++)) $x; echo $((9223372036854775807 + 1)); echo $((1/0)); echo not reached"),
    Script::new("read loops", "while read -r a b; do echo \"[$b|$a]\"; done", ).input(Input::Text("one two\nthree four five\n\n  indented line  \nback\\slash x\nlast without newline")).smoke(),
    Script::new("read options", "read -n 3 x; echo \"$x\"; read -r y; echo \"$y\"; IFS=: read a b c; echo $a $c; read z; echo $? \"$z\"; read z; echo $?").input(Input::Text("abcdef\nx:y:z\nend")),
    Script::new("quoting and globs", "cd /etc; echo *; echo 'a  b' a  b \"a  b\"; echo \\$HOME '$HOME'; echo /home/ada/*.txt /nothing/*; echo [gp]*; x='* ?'; echo \"$x\"; set -f; echo *; set -- a 'b c'; for i in \"$@\"; do echo $i; done; for i in $*; do echo $i; done"),
    Script::new("redirections", "cd /tmp; { echo out; echo err >&2; } >o 2>e; cat e o; { echo out; echo err >&2; } >both 2>&1; sort both; exec 3>f; echo three >&3; exec 3>&-; cat f; cat 4<f <&4; echo x 2>&- >&2; echo $?; ls /nothing 2>/dev/null || echo failed; echo y >&9; echo $?"),
    Script::new("closed standard output", "(exec >&-; echo x; echo $? >&2); (exec >&-; cat /etc/group; echo $? >&2); cat <&-; echo $?; echo still here"),
    Script::new("exit codes", "true; echo $?; false; echo $?; sh -c 'exit 300'; echo $?; /nothing; echo $?; nosuchcommand; echo $?; /etc/passwd; echo $?; /home/ada/not-executable; echo $?; /etc; echo $?; /home/ada/garbage 2>/dev/null; echo $?; ! true; echo $?; true | false; echo $?; false | true; echo $?").smoke(),
    Script::new("exit 126 as last word", "/home/ada/not-executable"),
    Script::new("exit 127 as last word", "no-such-command"),
    Script::new("exit of a syntax error", "echo before; if then"),
    Script::new("set -e and -u", "sh -ec 'false; echo no'; echo $?; sh -ec 'false || true; ! true; echo yes'; sh -uc 'echo $nope; echo no'; echo $?; set -o pipefail; false | true; echo $?; set -x; echo traced"),
    Script::new("scripts by their first line", "/home/ada/hello.sh a 'b c'; cd /home/ada; ./hello.sh; PATH=$PATH:. hello.sh x; printf '#!/usr/bin/env awk -f\\nBEGIN {print 1}\\n' >/tmp/a; printf '#!/bin/awk -f\\nBEGIN {print 2; exit 3}\\n' >/tmp/b; chmod +x /tmp/b; /tmp/b; echo $?; printf '#!/nothing/here\\n' >/tmp/c; chmod +x /tmp/c; /tmp/c; echo $?; printf 'echo no first line\\n' >/tmp/d; chmod +x /tmp/d; /tmp/d"),
    Script::new("environment", "env | grep -v -e ^HOSTNAME= -e ^SHLVL= | sort; A=1 env | grep ^A=; env -i B=2 env; export C=3; sh -c 'echo $C'; unset C; sh -c 'echo <$C>' 2>/dev/null; echo $HOME $PWD; env -u HOME sh -c 'echo ${HOME-unset}'"),
    Script::new("a large environment and argument list", "x=$(printf '%0100000d' 7); y=$x sh -c 'echo ${#y}'; echo $x | wc -c; sh -c 'echo $#' sh $(seq 10000); z=$x$x; env z=$z true; echo $?"),
    Script::new("eval and dot", "eval 'x=5; echo $x'; echo 'y=7; echo sourced $1' >/tmp/s; . /tmp/s; echo $y; eval \"$(echo 'echo nested')\"; alias l='ls /etc'; type cd; command -v ls; type f 2>&1; f() { :; }; type f | head -1"),
    Script::new("getopts and shift", "set -- -a -b val -c rest more; while getopts ab:c o; do echo $o $OPTARG; done; shift $((OPTIND-1)); echo $*; set -- -z; getopts ab o; echo $o"),
];
