# A part of the root through tar and back: contents, modes, owners, times, links, holes.
mkdir /tmp/a /tmp/b
cp -a /etc /usr/share/perl /tmp/a
cd /tmp/a
ln -s nowhere dangling
ln etc/passwd hard
mkfifo fifo
truncate -s 5M hole; echo end >>hole
chmod 4751 hard; chown 12:34 dangling -h; chmod 0 etc/group; mkdir closed; chmod 0 closed
find . -exec touch -h -d '2001-02-03 04:05:06.5' {} +
touch -d '1999-12-31 23:59:58.123456789' hole
list() { (cd "$1" && find . -printf '%y %m %U:%G %s %T@ %n %l %p\n' | grep -v '^d.* \./\?$' | sed 's/^d \(\S* \S*\) [0-9]*/d \1/' | sort; find . -type f -exec md5sum {} + | sort) | md5sum; }
list /tmp/a
tar -C /tmp/a --sparse -cf - . | tar -C /tmp/b --sparse --numeric-owner -xpf -
list /tmp/b
diff -r --no-dereference /tmp/a/etc /tmp/b/etc && echo same
stat -c '%s %h' /tmp/b/hole /tmp/b/hard
(( $(stat -c %b /tmp/b/hole) < 200 )) && echo holes stay
rm -rf /tmp/a /tmp/b; ls /tmp
