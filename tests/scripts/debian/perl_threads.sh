perl -e '
use threads; use threads::shared; use Thread::Queue;
my $sum :shared = 0; my @t = map { my $n = $_; threads->create(sub { for (1..200) { lock $sum; $sum += $n } return $n * 2 }) } 1..12;
my $r = 0; $r += $_->join for @t; print "$sum $r\n";
my $q = Thread::Queue->new; my $out = Thread::Queue->new; my @w = map { threads->create(sub { while (defined(my $x = $q->dequeue)) { $out->enqueue($x * $x) } }) } 1..4;
$q->enqueue($_) for 1..200; $q->end; $_->join for @w; my $s = 0; while (defined(my $x = $out->dequeue_nb)) { $s += $x } print "$s\n";
my $c :shared = 0; my $th = threads->create(sub { lock $c; cond_wait($c) until $c; return "woken" }); { lock $c; $c = 1; cond_signal($c) } print $th->join, "\n"; threads->create(sub { threads->exit })->join; my $e = threads->create(sub { die "in thread\n" }); $e->join; print threads->list(threads::all) + 0, "\n";
' 2>&1
