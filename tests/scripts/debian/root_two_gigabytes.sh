# A file of 2 GB, sparse for the most part: written here and there, hashed, punched, cut, copied and removed.
cd /tmp
truncate -s 2G f; stat -c %s f
for i in $(seq 0 39); do
    head -c 300000 /dev/zero | tr '\0' "\\$(printf %o $((65 + i % 26)))" | dd of=f bs=300000 seek=$((i * 179)) conv=notrunc iflag=fullblock 2>/dev/null
done
echo end >>f; stat -c %s f; (( $(stat -c %b f) < 60000 )) && echo sparse
md5sum f; tail -c 4 f
before=$(stat -c %b f)
for i in 0 7 20 39; do fallocate -p -o $((i * 179 * 300000)) -l 300000 f; done
fallocate -p -o 2147400000 -l 100000 f; stat -c %s f
(( $(stat -c %b f) < before )) && echo less
perl -e 'open F, "<", "f"; my ($at, $n) = (0, 0);
    # SEEK_DATA and SEEK_HOLE: where the pieces are, to the block.
    while (defined($at = sysseek F, $at, 3)) { my $end = sysseek F, $at, 4; $n++; $sum += $end - $at; $at = $end } print "$n pieces\n"'
cp --sparse=always f g; cmp -n 30000000 f g && stat -c %s g; (( $(stat -c %b g) < 60000 )) && echo sparse copy
dd if=g bs=1M skip=2047 2>/dev/null | md5sum
truncate -s 1500000000 f; truncate -s 2000000001 f; tail -c 5000001 f | tr -d '\0' | wc -c
rm f g; ls
