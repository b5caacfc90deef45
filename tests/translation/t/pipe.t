use strict; use warnings;
use POSIX ();
use Test::More;

for my $size (1, 100, 4096, 65536, 300_000) {
    pipe my $reader, my $writer or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    unless ($pid) { close $reader; print {$writer} 'x' x $size; close $writer; POSIX::_exit(0) }
    close $writer;
    local $/;
    is length(<$reader>), $size, "$size bytes through a pipe";
    waitpid $pid, 0;
}
open my $sort, '-|', 'printf "c\nb\na\n" | sort' or die;
is join('', <$sort>), "a\nb\nc\n", 'a pipeline is read';
ok close($sort), 'and ends well';
open my $cat, '|-', 'cat >/dev/null' or die;
print {$cat} "line $_\n" for 1 .. 5000;
ok close($cat), 'a pipeline is written';
my $broken = 0;
{
    local $SIG{PIPE} = sub { $broken++ };
    open my $true, '|-', 'true' or die;
    select undef, undef, undef, 0.01 while !$broken && syswrite $true, "x\n";
    close $true;
}
is $broken, 1, 'SIGPIPE';
done_testing;
