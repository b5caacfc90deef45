cd /tmp; exec 5>f; echo five >&5; echo more >&5; exec 5>&-; cat f; echo x >&5; echo $?
exec {fd}<f; read -u $fd l; echo "$l"; exec {fd}<&-; echo a >| f; set -C; echo b > f; echo $?; set +C; cat f; echo c >> f; cat < f
{ echo o; echo e >&2; } &> both; sort both; ls /nothing 2>/dev/null || echo failed; exec 6<>f; read -u 6 x; echo "new" >&6; exec 6>&-; cat f
cat < /nothing; echo $?; echo hi > /nothing/x; echo $?; : > f; [ -s f ]; echo $?; read -t 1 x < /dev/null; echo "$? [$x]"; read -n 3 x <<< abcdef; echo $x; read -d : x <<< a:b; echo $x
echo to-fd 3>&1 1>&2 2>&3 | cat; exec 9< /etc/passwd; bash -c 'head -1 <&9'; ls -l /proc/self/fd/9 | sed 's/.*-> //'
