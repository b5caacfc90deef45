use strict; use warnings;
use Test::More;
use POSIX qw(:signal_h);
use Time::HiRes qw(alarm sleep);

my %seen;
for my $name (qw(HUP INT USR1 USR2 TERM)) {
    local $SIG{$name} = sub { $seen{$_[0]}++ };
    kill $name, $$ for 1 .. 10;
    is $seen{$name}, 10, "SIG$name handled";
}
my $late = 0;
$SIG{ALRM} = sub { $late++ };
alarm 0.02;
1 while !$late;
is $late, 1, 'alarm';
my $set = POSIX::SigSet->new(SIGUSR1);
$SIG{USR1} = sub { $seen{masked}++ };
sigprocmask(SIG_BLOCK, $set);
kill 'USR1', $$;
is $seen{masked}, undef, 'blocked';
sigprocmask(SIG_UNBLOCK, $set);
is $seen{masked}, 1, 'delivered when unblocked';
eval { local $SIG{ALRM} = sub { die "timeout\n" }; alarm 0.02; select undef, undef, undef, 60; };
is $@, "timeout\n", 'a handler that dies';
done_testing;
