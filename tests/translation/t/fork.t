use strict; use warnings;
use Test::More;
use POSIX ":sys_wait_h";

for my $status (0, 1, 7, 255) {
    my $pid = fork // die "fork: $!";
    POSIX::_exit($status) unless $pid;
    waitpid $pid, 0;
    is $? >> 8, $status, "exit status $status";
}
for my $signal (qw(TERM KILL USR1)) {
    my $pid = fork // die "fork: $!";
    unless ($pid) { $SIG{$signal} = 'DEFAULT' unless $signal eq 'KILL'; kill $signal, $$; sleep 60; POSIX::_exit(0) }
    waitpid $pid, 0;
    ok $? & 127, "died of SIG$signal";
}
my @children = map { my $n = $_; my $pid = fork // die; POSIX::_exit($n) unless $pid; $pid } 1 .. 20;
my $sum = 0;
while ((my $pid = wait) > 0) { $sum += $? >> 8 }
is $sum, 210, 'every child is waited for';
is waitpid(-1, WNOHANG), -1, 'none is left';
is `echo out; exit 3`, "out\n", 'backquotes';
is $? >> 8, 3, 'and their status';
is system("true"), 0, 'system';
done_testing;
