trap 'echo got it' USR1; sleep 30 & s=$!; (while ! grep -q '^State:.S' /proc/$$/status; do :; done; kill -USR1 $$; sleep 0.2) & k=$!; wait $s; echo $?; kill $s; wait $s 2>/dev/null; echo $?; wait $k; echo $?
(trap 'echo term in sub; exit 3' TERM; while :; do sleep 0.01; done) & p=$!; sleep 0.1; kill $p; wait $p; echo $?
exec 3<> <(:); trap 'echo alarmed' ALRM; (sleep 0.05; kill -ALRM $$) & read -t 20 x < <(sleep 0.3; echo late); echo "$? $x"
