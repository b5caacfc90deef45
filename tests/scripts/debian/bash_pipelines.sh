seq 1000 | grep 7 | sort -rn | head -5 | tr '\n' ' '; echo; false | true | (exit 3) | true; echo "${PIPESTATUS[@]} $?"
set -o pipefail; false | true; echo $?; (exit 4) | (exit 5); echo $?; set +o pipefail; ! true; echo $?
yes | head -100000 | md5sum; cat /etc/passwd | while read l; do n=$((n+1)); done; echo "n=$n"; shopt -s lastpipe; cat /etc/passwd | while read l; do n=$((n+1)); done; echo "n=$((n > 5))"
(echo out; echo err >&2) 2>&1 | sort; (echo out; echo err >&2) 2>&1 >/dev/null | cat; coproc C { tr a-z A-Z; }; echo hello >&${C[1]}; eval "exec ${C[1]}>&-"; cat <&${C[0]}; wait
