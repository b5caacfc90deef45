//! Text tools and pipelines.

use super::Script;

pub(super) const SCRIPTS: &[Script] = &[
    Script::new("sort by number and key", "sort -t: -k3,3n /etc/passwd; sort -t: -k7,7 -k1,1r /etc/passwd; sort -u -t: -k7,7 /etc/passwd | wc -l"),
    Script::new("uniq counts shells", "cut -d: -f7 /etc/passwd | sort | uniq -c | sort -rn; cut -d: -f7 /etc/passwd | sort | uniq -d"),
    Script::new("tr maps, squeezes and deletes", "tr a-z A-Z </home/ada/poem.txt; echo aabbccdd | tr -s a-c; echo 1-2-3 | tr -d -; echo xyz | tr -c 'x\\n' ."),
    Script::new("cut by byte and field", "cut -c1-5,10 /etc/passwd; cut -d: -f1,6 /etc/passwd; cut -s -d@ -f1 /etc/passwd; echo end"),
    Script::new("awk sums and arrays", r#"awk -F: '{n[$7]++; s+=$3} END {for (k in n) print n[k], k | "sort"; close("sort"); print s, NR}' /etc/passwd; awk 'BEGIN {printf "%5.2f|%-6s|%06d|%x\n", 22/7, "ab", 42, 255}'"#).smoke(),
    Script::new("awk functions and getline", r#"awk 'function f(n) {return n < 2 ? n : f(n-1) + f(n-2)} BEGIN {print f(15); while (("seq 3" | getline line) > 0) print "got", line; print length("hello"), substr("hello", 2, 3), index("hello", "l"), toupper("x")}'"#),
    Script::new("sed edits", r#"sed -n '2,4p' /etc/passwd; sed -e 's/:/ /g' -e '/false/d' /etc/passwd; sed 's/\(.*\):\(.*\)$/\2:\1/' /etc/group; printf 'a\nb\nc\n' | sed '1!G;h;$!d'"#),
    Script::new("sed in place", "cp /etc/passwd /tmp/p; sed -i 's/^root/toor/' /tmp/p; head -1 /tmp/p; ls /tmp"),
    Script::new("grep options", "grep -n false /etc/passwd; grep -c sh$ /etc/passwd; grep -v -e a -e e /etc/group; grep -E '^(ada|grace):' /etc/passwd; grep -o 't[a-z]*' /home/ada/poem.txt; grep -q zebra /etc/passwd; echo $?"),
    Script::new("grep recursive", "grep -rl root /etc | sort; grep -r nothing-of-the-kind /etc; echo $?"),
    Script::new("head tail wc", "head -2 /etc/passwd; tail -2 /etc/passwd; tail -n +11 /etc/passwd; head -c 20 /etc/passwd; echo; wc /etc/passwd /etc/group; wc -l </home/ada/poem.txt; head -n -10 /etc/passwd"),
    Script::new("od hexdump xxd", "head -c 40 /bin/busybox | od -An -tx1; printf '\\1\\2\\377abc' | hexdump -C; printf 'hello' | xxd; printf 'abcdefgh' | od -c"),
    Script::new("checksums", "md5sum /etc/passwd; sha1sum /etc/passwd; sha256sum /etc/passwd /etc/group; sha512sum </etc/group; sha256sum /etc/passwd >/tmp/s; sha256sum -c /tmp/s").smoke(),
    Script::new("seq and expr", "seq 5; seq 2 3 11; seq -s, 5 -1 1; seq -w 8 11; expr 3 + 4 \\* 2; expr length hello; expr hello : 'h\\(.*\\)o'; expr 1 = 2; echo $?; expr 1 / 0; echo $?"),
    Script::new("printf formats", r#"printf '%s|%5s|%-5s|%d|%05d|%x|%o|%c|%%\n' a b c 42 42 255 8 xyz; printf '%b' 'tab\there\n'; printf '%s\n' one two three; printf '%.3f %e\n' 3.14159 31415.9"#),
    Script::new("paste diff cmp", "seq 3 >/tmp/a; seq 2 4 >/tmp/b; paste /tmp/a /tmp/b; paste -s -d+ /tmp/a; diff /tmp/a /tmp/b; echo $?; cmp /tmp/a /tmp/b; echo $?"),
    Script::new("diff and patch", "cp /etc/group /tmp/g; sed 's/mail/post/' /tmp/g >/tmp/h; diff -u -L a -L b /tmp/g /tmp/h >/tmp/d; cat /tmp/d; patch /tmp/g /tmp/d; cmp /tmp/g /tmp/h && echo same"),
    Script::new("fold nl rev tac", "fold -w 20 /home/ada/poem.txt; nl /home/ada/poem.txt; rev /etc/group; tac /etc/group; expand -t4 <<E\na\tb\nE"),
    Script::new("base64 and uuencode", "base64 /etc/passwd | head -3; base64 /etc/passwd | base64 -d | cmp - /etc/passwd && echo same; uuencode x </etc/group | head -2"),
    Script::new("bc and dc", "echo '2^100; scale=5; 22/7' | bc; echo '2 3 + p' | dc"),
    Script::new("long pipeline", "cat /etc/passwd | tr : '\\n' | grep -v '^$' | sort | uniq -c | sort -k1,1nr -k2 | head -12 | awk '{print $2, $1}' | cat -n | tail -5").smoke(),
    Script::new("cut to pieces and joined", "seq 1000 >/tmp/n; cd /tmp; for i in 0 1 2 3; do dd if=n of=part.$i bs=1000 skip=$i count=1 2>/dev/null; done; wc part.*; cat part.* | cmp - n && echo same"),
    Script::new("ed follows a script", "printf '1i\\nfirst\\n.\\nw\\nq\\n' >/tmp/c; cp /etc/group /tmp/g; ed /tmp/g </tmp/c; head -2 /tmp/g"),
];
