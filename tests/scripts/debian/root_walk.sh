# The whole root: how many files, how large, and nothing of the packages changed.
find / -xdev | wc -l
find / -xdev -type f -printf '%m %u %g %s %T@ %n %p\n' | grep -v -e ' /etc/' -e /var/cache -e /var/lib | sort | md5sum
find / -xdev -type l -printf '%p %l\n' | sort | md5sum
du -sx --apparent-size /usr/bin /usr/lib/x86_64-linux-gnu | cat
dpkg --verify | grep -v '^missing' | sort
dpkg -l | md5sum
