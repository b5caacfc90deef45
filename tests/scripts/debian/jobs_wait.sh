exec 2>&1; s() { sed -E "s,(line [0-9]+:) *[0-9]+ ,\1 PID ,"; }; {
for i in 5 3 1 4 2; do (sleep 0.0$i; exit $i) & pids+=($!); done; for p in "${pids[@]}"; do wait $p; echo $?; done
sleep 0.02 & wait -n; echo $?; (exit 7) & wait -n; echo $?; wait; echo $?; jobs; sleep 100 & sleep 200 & jobs -r | sed 's/ *$//'; kill %1; wait %1; echo $?; kill -9 %2; wait %2; echo $?; wait 4242 2>&1; echo $?
} 2>&1 | s
