set -m; sleep 100 & p=$!; kill -STOP $p; while ! grep -q '^State:.T' /proc/$p/status; do :; done; jobs -s | sed 's/ *$//'; kill -CONT $p; while grep -q '^State:.T' /proc/$p/status; do :; done
[ "$(ps -o pgid= -p $p | tr -d ' ')" = $p ] && echo own group; kill %1; wait $p 2>/dev/null; echo $?
sleep 100 | cat & g=$(jobs -p %%); [ "$(ps -o pgid= -p $! | tr -d ' ')" = $g ] && echo one group; kill -- -$g; wait $! 2>/dev/null; echo $?
fg 2>&1; echo $?; set +m; sleep 100 & [ "$(ps -o pgid= -p $! | tr -d ' ')" = $$ ] && echo the shell\'s group; kill $!; wait $! 2>/dev/null; echo $?
