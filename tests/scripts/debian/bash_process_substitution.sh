diff <(seq 5) <(seq 2 6); echo $?; comm -12 <(seq 1 2 20 | sort) <(seq 1 3 20 | sort) | tr '\n' ' '; echo
seq 100 | tee >(wc -l > /tmp/a) >(md5sum > /tmp/b) > /dev/null; while ! [ -s /tmp/a -a -s /tmp/b ]; do :; done; cat /tmp/a /tmp/b
paste <(seq 3) <(seq 4 6) <(seq 7 9); cat <(echo one) <(echo two); while read -r l; do last=$l; done < <(seq 50); echo $last; [ -p <(:) ] && echo pipe
