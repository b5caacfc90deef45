# A tree with everything a file can have, copied, changed and copied again.
mkdir -p /tmp/s/d/e; cd /tmp/s
echo one >one; ln one two; ln -s one link; mkfifo fifo; mknod null c 1 3; truncate -s 3M hole; echo end >>hole
chmod 4711 one; chown 5:6 d; chmod 2770 d/e
setfattr -n user.k -v value one; setfattr -n user.k -v dir d
cp -r /usr/share/perl-base d/e/ 2>/dev/null || cp -r /usr/share/perl d/e/perl-base
find . -exec touch -h -d '2001-02-03 04:05:06.5' {} +; touch -d '2002-03-04 05:06:07.89' d/e hole; touch -h -d '1990-01-01' link
list() { (cd "$1" && find . -printf '%y %m %U:%G %s %T@ %n %l %p\n' | sed 's/^d \(\S* \S*\) [0-9]*/d \1/' | sort; getfattr -Rhd . 2>/dev/null); }
rsync -aHAXS --numeric-ids /tmp/s/ /tmp/t; list /tmp/s | md5sum; list /tmp/t | md5sum
rsync -aHAXSi --delete /tmp/s/ /tmp/t
F=$(find d/e -name strict.pm | head -1); echo more >>$F; touch -d '2003-01-01' $F; rm two; mv link d/; chmod 600 hole; touch -d '2004-01-01' . d
rsync -aHAXSi --delete /tmp/s/ /tmp/t | sort; list /tmp/s >/tmp/1; list /tmp/t >/tmp/2; diff /tmp/1 /tmp/2 && echo same
diff -r --no-dereference d/e/perl-base /tmp/t/d/e/perl-base && echo equal
