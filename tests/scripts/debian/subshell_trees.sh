tree() { local d=$1; if ((d == 0)); then echo -n .; else (tree $((d - 1))) & (tree $((d - 1))) & wait; fi; }; tree 6 | wc -c; (((((echo deep)))))
a=$(b=$(c=$(d=$(echo core); echo "d:$d"); echo "c:$c"); echo "b:$b"); echo "$a"; x=1; (x=2; (x=3; echo $x); echo $x); echo $x; for i in {1..30}; do (exit $i); s=$((s + $?)); done; echo $s
for i in {1..60}; do echo $i & done | sort -n | tail -1; n=0; for i in {1..50}; do n=$((n + $(echo $i))); done; echo $n; (cd /tmp; umask 077; pwd; umask); pwd; umask; (exec echo replaced; echo never); (ulimit -n 50; ulimit -n); (exit 5) || echo "or $?"
