# A large file: written in pieces of many sizes, read back, punched, cut, appended to, copied.
cd /tmp
for i in $(seq 200); do head -c $((i * 997)) /dev/zero | tr '\0' "\\$(printf %o $((65 + i % 26)))"; done >f
stat -c %s f; md5sum <f
dd if=f of=g bs=777 2>/dev/null; cmp f g && echo copied
dd if=f of=g bs=1M conv=notrunc,sparse 2>/dev/null; cmp f g && echo over itself
fallocate -p -o 1000000 -l 5000000 g; md5sum <g; stat -c %s g
truncate -s 3000001 g; echo tail >>g; md5sum <g; tail -c 6 g
exec 3<>g; echo begin >&3; echo x >>g; head -c 20 <&3 | md5sum; exec 3>&-; tail -c 8 g
truncate -s 300M h; echo end >>h; stat -c %s h; (( $(stat -c %b h) < 200 )) && echo sparse
cp --sparse=always h i; cmp h i && echo same; cat h | tail -c 4
(for i in $(seq 3000); do echo line $i; done) >many; for i in $(seq 300); do echo $i >>many; done; md5sum <many; wc -l <many
sed -i 's/line 7/LINE 7/' many; sort -u many | md5sum; rm f g h i many; ls
