use strict; use warnings;
use Test::More;

my %count;
$count{$_ % 997}++ for 1 .. 100_000;
is keys %count, 997, 'hash';
my @sorted = sort { $a <=> $b } map { ($_ * 7919) % 10_007 } 1 .. 10_000;
is $sorted[4999], (sort { $a <=> $b } @sorted)[4999], 'sort';
is join('', map { chr } unpack 'C*', pack 'N', 0x6875736b), 'husk', 'pack';
my $text = 'the quick brown fox ' x 2000;
is scalar(() = $text =~ /\b\w+\b/g), 8000, 'words';
(my $swapped = $text) =~ s/(\w+) (\w+)/$2 $1/g;
is length $swapped, length $text, 'substitution';
is sprintf('%08.3f|%-5s|%x', 3.14159, 'ab', 255), '0003.142|ab   |ff', 'sprintf';
is eval '1 +' x 500 . '1', 501, 'eval';
done_testing;
