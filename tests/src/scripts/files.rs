//! Files, directories, links, archives.

use super::Script;

pub(super) const SCRIPTS: &[Script] = &[
    Script::new("the root directory", "ls /; ls -a /home/ada; ls -ld /tmp /root /home/ada /etc/shadow | awk '{print $1, $3, $4, $NF}'"),
    Script::new("the image's own times and modes", "stat -c '%n %A %a %u %g %F %Y' /etc/passwd /home /home/ada /tmp /var/poem /root /etc/shadow; stat -c %s /etc/passwd /var/poem; stat -c %h /bin/busybox; ls -l --full-time /etc/passwd /var/poem"),
    Script::new("cp mv rm ln mkdir rmdir", "cd /tmp; mkdir -p a/b/c; cp /etc/passwd a/p; ln a/p a/hard; ln -s p a/soft; ls a; stat -c '%n %h' a/p; mv a/p a/b/q; cat a/soft; readlink a/soft; cmp a/hard a/b/q && echo same; rmdir a/b; rm -r a; ls -A; rm nothing; echo $?").smoke(),
    Script::new("cp -a keeps everything", "cp -a /home /tmp/h; cd /tmp/h; find . | sort | xargs stat -c '%n %a %u %g %Y'; find . -type f | sort | xargs stat -c '%n %s'; cp -r /var /tmp/v; readlink /tmp/v/poem"),
    Script::new("mv over and across", "cd /tmp; echo 1 >a; echo 2 >b; mv a b; cat b; mkdir d; mv b d; mv d e; cat e/b; mv e e/f; echo $?; mv nothing e; echo $?; mkdir x y; touch y/z; mv -T x y; echo $?"),
    Script::new("chmod and umask", "cd /tmp; touch f; for m in 600 755 4711 2755 1777 000 u=rwx,go=rx a-x u+s; do chmod $m f; stat -c '%a %A' f; done; umask; umask 077; touch g; mkdir h; stat -c %a g h; umask 0; touch i; stat -c %a i"),
    Script::new("chown and chgrp", "cd /tmp; touch f; chown ada f; stat -c '%u %g %U %G' f; chown ada:users f; stat -c '%U %G' f; chgrp 1234 f; stat -c '%u %g' f; chown -R 7:8 /home/ada; stat -c '%u:%g' /home/ada/*; chown nobody:nosuch f; echo $?"),
    Script::new("touch sets times", "cd /tmp; touch -d '2001-02-03 04:05:06' f; stat -c '%X %Y' f; touch -r f g; stat -c %Y g; touch -c none; ls; TZ=UTC date -r f; test g -nt f; echo $?; touch -d 2002-01-01 g; test g -nt f; echo $?"),
    Script::new("find", "cd /; find /home /etc | sort; find /etc -type f -name '*s*' | sort; find /home -type f -perm -100 | sort; find / -xdev -maxdepth 1 -type d | sort; find /etc -size +0 -exec basename {} ';' | sort; find /var -type l; find /home -newer /etc/passwd; find /tmp -empty"),
    Script::new("find and xargs", "find /etc -type f | sort | xargs wc -c; find /home/ada -type f -print0 | xargs -0 -n1 basename | sort; seq 10 | xargs -n 3 echo; echo a b | xargs -I{} echo '<{}>'; xargs -r false </dev/null; echo $?; seq 3 | xargs false; echo $?"),
    Script::new("tar and gzip round trip", "cd /; tar cf - home etc | gzip -9 >/tmp/x.tgz; mkdir /tmp/out; tar xzf /tmp/x.tgz -C /tmp/out; cd /tmp/out; find . -type f | sort | xargs md5sum; tar tzf /tmp/x.tgz | sort; tar tvzf /tmp/x.tgz etc/shadow; diff -r /etc /tmp/out/etc && echo same").smoke(),
    Script::new("bzip2 xz lzop", "cp /bin/busybox /tmp/b; cd /tmp; bzip2 -k b; bunzip2 -c b.bz2 | cmp - b && echo same; gzip -k b; zcat b.gz | md5sum; ls | sort"),
    Script::new("cpio round trip", "cd /home; find . | sort | cpio -o -H newc 2>/dev/null >/tmp/c; mkdir /tmp/o; cd /tmp/o; cpio -id 2>/dev/null </tmp/c; find . -type f | sort | xargs md5sum; stat -c '%n %a' ada ada/hello.sh"),
    Script::new("dd", "cd /tmp; dd if=/dev/zero of=z bs=1k count=100 2>/dev/null; stat -c %s z; dd if=/bin/busybox of=b bs=4096 skip=3 count=5 2>/dev/null; md5sum b; dd if=/etc/passwd of=z bs=1 seek=5000 conv=notrunc 2>/dev/null; md5sum z; dd if=/dev/zero bs=1 count=0 of=sparse seek=10000000 2>/dev/null; stat -c '%s %b' sparse; dd if=z of=/dev/null bs=100k 2>&1 | head -2").smoke(),
    Script::new("truncate and sparse files", "cd /tmp; truncate -s 1M f; stat -c %s f; echo end >>f; stat -c %s f; tail -c 4 f; md5sum f; truncate -s 3 f; od -An -tx1 f; truncate -s 10 f; od -An -tx1 f"),
    Script::new("links and their limits", "cd /tmp; ln -s loop loop; cat loop; echo $?; ln -s /etc dir; ls dir/passwd; cd dir; pwd; pwd -P; cd /tmp; rm dir; ls /etc/passwd; ln -s a b; readlink -f b; ls b; test -L b && echo link; test -e b || echo dangling; ln /etc d; echo $?"),
    Script::new("permission of other users", "echo secret >/tmp/s; chmod 600 /tmp/s; chmod 755 /tmp; su ada -c 'cat /tmp/s; echo $?; cat ~/poem.txt | head -1; touch /etc/x; echo $?; id -un; cat /etc/shadow; cd /root; echo $?' "),
    Script::new("sticky directory", "cd /tmp; touch mine; su ada -c 'touch /tmp/hers; rm /tmp/hers; echo $?; rm -f /tmp/mine; echo $?'; ls"),
    Script::new("errors of names", "cat /nothing; cat /etc/passwd/x; cat /etc; ls /nothing; cd /etc/passwd; mkdir /etc; rmdir /home; mkdir /a/b/c; echo x >/etc; cat ''; rm /; n=$(printf '%0300d' 0); touch /tmp/$n; echo $?"),
    Script::new("many files", "cd /tmp; for i in $(seq 500); do echo $i >f$i; done; ls | wc -l; cat f* | sort -n | md5sum; rm f*5; ls | wc -l; rm -rf /tmp/f*; ls | wc -l"),
    Script::new("deep directories", "cd /tmp; p=.; for i in $(seq 60); do p=$p/d$i; done; mkdir -p $p; cd $p; pwd | wc -c; echo x >x; cd /tmp; find . | wc -l; cat $p/x; rm -r d1; ls"),
    Script::new("an open file survives its removal", "cd /tmp; echo before >f; exec 3<>f; rm f; ls; cat <&3; echo after >&3; cat /proc/self/fd/3; exec 3>&-"),
    Script::new("append and truncate through redirection", "cd /tmp; echo a >f; echo b >>f; cat f; echo c >f; cat f; : >f; stat -c %s f; set -C; echo d >f; echo $?; echo d >|f; cat f; { echo x; echo y; } >f 2>&1; cat <f"),
    Script::new("mktemp", "f=$(mktemp); test -f $f && stat -c '%a %s' $f; d=$(mktemp -d); stat -c %a $d; f=$(mktemp /tmp/abc.XXXXXX); echo ${#f}; mktemp /nothing/XXXXXX 2>/dev/null; echo $?"),
    Script::new("df and du", "mkdir /tmp/d; head -c 100000 /dev/zero >/tmp/d/a; du -b /tmp/d/a; du -s /etc >/dev/null && echo ok; df / >/dev/null && echo ok"),
    Script::new("fifo", "cd /tmp; mkfifo p; stat -c %F p; (echo through the pipe >p) & cat p; wait; (cat p | tr a-z A-Z) & seq 3 >p; wait; rm p; ls"),
    Script::new("test operators", "cd /tmp; touch e; echo x >f; chmod 0 e; for t in '-e e' '-f e' '-s e' '-s f' '-d /etc' '-L /var/poem' '-x /bin/sh' '-p f' '-c /dev/null' '-b /dev/null' '-r /etc/shadow' '-O f' '-u f' '-k /tmp' '3 -lt 4' '3 -ge 4' 'a = a' 'a != a' '-n x' '-z x' 'e -ot f' 'f -ef f'; do test $t; echo \"$t $?\"; done"),
];
