exec 2>&1; s() { sed -E "s,(line [0-9]+:) *[0-9]+ ,\1 PID ,"; }; {
timeout 0.1 sleep 10; echo $?; timeout -s INT 0.1 sleep 10; echo $?; timeout --preserve-status -s TERM 0.1 sleep 10; echo $?; timeout -k 0.1 0.1 bash -c 'trap "" TERM; while :; do :; done'; echo $?
timeout 10 true; echo $?; timeout 10 false; echo $?; timeout 10 /nothing 2>&1; echo $?; timeout 10 /etc/passwd 2>&1; echo $?; timeout --foreground 0.1 sleep 10; echo $?; timeout 0 echo zero; timeout 0.2 bash -c 'sleep 10 & sleep 10'; echo $?
} 2>&1 | s
