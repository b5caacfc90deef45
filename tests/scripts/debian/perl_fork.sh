perl -e '
use strict; my %k; for my $i (1..20) { my $p = fork() // die; if (!$p) { exit $i } $k{$p} = $i }
my $s = 0; while ((my $p = wait()) > 0) { my $c = $? >> 8; die unless $k{$p} == $c; $s += $c } print "$s\n";
pipe(my $r, my $w); if (!fork) { close $r; print $w "line $_\n" for 1..5000; exit } close $w; my $n = 0; $n++ while <$r>; wait; print "$n $?\n";
my $o = `echo shell; exit 3`; print $o, $? >> 8, "\n"; system("kill -9 \$\$"); print $? & 127, "\n"; print system("/nothing 2>/dev/null") >> 8, "\n";
open(my $f, "-|") // exec "echo", "from exec"; print <$f>; close $f; open($f, "|-", "tr a-z A-Z"); print $f "upper\n"; close $f; local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; select undef, undef, undef, 10; }; print "got $@"; $SIG{CHLD} = "IGNORE"; if (!fork) { exit 1 } print wait(), "\n";
'
