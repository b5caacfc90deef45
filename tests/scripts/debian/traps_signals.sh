exec 2>&1; s() { sed -E "s,(line [0-9]+:) *[0-9]+ ,\1 PID ,"; }; {
trap 'echo usr1' USR1; trap 'echo usr2; trap - USR2' USR2; kill -USR1 $$; kill -USR1 $$; kill -USR2 $$; trap -p | sort; (trap -p | sort; kill -USR1 $BASHPID; echo lives) ; echo $?
trap '' HUP; bash -c 'kill -HUP $$; echo ignored in child'; trap - HUP; bash -c 'trap "echo bye" EXIT; exit 5'; echo $?; bash -c 'trap "echo int; exit 1" INT; kill -INT $$; echo no'; echo $?
bash -c 'trap "echo chld" CHLD; true & wait; :' ; bash -c 'trap "echo debug" DEBUG; true; true'; for s in RTMIN RTMIN+3 RTMAX-1 RTMAX; do bash -c "trap 'echo $s' $s; kill -$s \$\$"; done
bash -c 'kill -SEGV $$'; echo $?; bash -c 'kill -ABRT $$'; echo $?
} 2>&1 | s
