use strict; use warnings;
use Test::More;
use File::Temp 'tempdir';

my $dir = tempdir(CLEANUP => 1);
for my $n (1 .. 200) {
    open my $file, '>', "$dir/f$n" or die "open: $!";
    print {$file} "contents of $n\n" x $n;
    close $file;
}
my @names = glob "$dir/f*";
is @names, 200, 'glob finds them';
my $size = 0;
$size += -s for @names;
my $length = 0;
$length += length("contents of $_\n") * $_ for 1 .. 200;
is $size, $length, 'sizes';
for my $n (1 .. 100) { rename "$dir/f$n", "$dir/g$n" or die "rename: $!" }
opendir my $handle, $dir or die;
is scalar(grep /^g\d+$/, readdir $handle), 100, 'renamed';
is join(',', (stat "$dir/g7")[2, 3]), join(',', 0100644 & ~umask, 1), 'mode and links';
ok link("$dir/g7", "$dir/h7"), 'link';
is((stat "$dir/g7")[3], 2, 'two links');
ok symlink('g7', "$dir/s7"), 'symlink';
is readlink("$dir/s7"), 'g7', 'readlink';
open my $file, '+<', "$dir/g50" or die;
seek $file, 10, 0;
read $file, my $piece, 5;
is $piece, "f 50\n", 'seek and read';
truncate $file, 3;
is -s "$dir/g50", 3, 'truncate';
is unlink(glob "$dir/[fghs]*"), 202, 'unlink';
ok rmdir $dir, 'rmdir';
done_testing;
