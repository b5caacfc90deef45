# Terminals of a program's own making: script, su, and a shell's job control.
export LC_ALL=C TERM=dumb PS1='% '

echo '== script'
script -qc 'tty; stty -a; ls -l /dev/pts | tail -n +2 | cut -d" " -f1-6; ps -o tty,comm' /dev/null </dev/null | tr -d '\r'
echo "status ${PIPESTATUS[0]}"
script -eqc 'stty -echo rows 7 cols 9; stty size; exit 3' /dev/null </dev/null | tr -d '\r'
echo "status ${PIPESTATUS[0]}"
seq 20000 | script -qc 'stty raw -echo; echo; head -c 50000 | md5sum' /dev/null | tail -1 | tr -d '\r'
script -qc 'seq 30000' /dev/null </dev/null | md5sum

echo '== su'
su -P -s /bin/bash -c 'id -un; tty; test -O "$(tty)"; echo "own $?"' nobody </dev/null | tr -d '\r'

echo '== jobs of a shell'
cat >/tmp/drive.pl <<'PERL'
# Types into a shell on a terminal and waits for what it shows.
use strict; use POSIX (); use Fcntl;
$| = 1;
sysopen(my $master, '/dev/ptmx', O_RDWR | O_NOCTTY) or die "ptmx: $!";
my $off = pack('i', 0);
ioctl($master, 0x40045431, $off) or die "unlock: $!";
my $number = pack('i', 0);
ioctl($master, 0x80045430, $number) or die "number: $!";
my $name = '/dev/pts/' . unpack('i', $number);
my $pid = fork;
if (!$pid) {
    close $master;
    POSIX::setsid();
    sysopen(my $slave, $name, O_RDWR) or die "$name: $!";
    POSIX::dup2(fileno($slave), $_) for 0 .. 2;
    exec 'bash', '--norc', '--noediting', '-i' or die;
}
my $seen = '';
sub until_seen {
    my ($what) = @_;
    my $end = time + 20;
    while ($seen !~ $what) {
        my $bits = '';
        vec($bits, fileno($master), 1) = 1;
        if (time > $end || !select($bits, undef, undef, 1) && time > $end) { print "[no $what in: $seen]\n"; exit 1 }
        next unless vec($bits, fileno($master), 1);
        sysread($master, my $bytes, 4096) or do { $seen .= "[$!]" if $!; last };
        $seen .= $bytes;
    }
    $seen =~ s/($what)//s;
    (my $shown = $` . $1) =~ s/\r//g;
    substr($seen, 0, length $`) = '';
    $shown =~ s/^\[(\d+)\] \d+$/[$1] PID/gm;
    print $shown;
}
sub typed { syswrite($master, $_[0]) }
my $prompt = qr/% $/;
until_seen($prompt);
typed("tty | sed 's/[0-9]*\$/N/'; echo \$-\n");
until_seen($prompt);
typed("sleep 1000\n"); until_seen(qr/sleep 1000\r\n/);
# The shell must have put it into the foreground before the key counts.
sub in_front {
    my ($comm) = @_;
    for (1 .. 2000) {
        my $group = pack('i', 0);
        ioctl($master, 0x540f, $group);
        my $front = unpack('i', $group);
        if (open(my $f, '<', "/proc/$front/comm")) { my $is = <$f>; return if $is eq "$comm\n" }
        select undef, undef, undef, 0.005;
    }
    print "[$comm not in front]\n";
}
in_front('sleep');
typed("\cZ"); until_seen($prompt);
typed("jobs\n"); until_seen($prompt);
typed("cat & until jobs | grep -q 'Stopped.*cat'; do :; done\n"); until_seen(qr/Stopped.*% $/s);
typed("fg\n"); until_seen(qr/fg\r\ncat\r\n/); in_front('cat');
typed("to the cat\n"); until_seen(qr/to the cat\r\nto the cat\r\n/);
typed("\cD"); until_seen($prompt);
typed("fg\n"); until_seen(qr/sleep 1000\r\n/); in_front('sleep');
typed("\cC"); until_seen($prompt);
typed("echo \$?\n"); until_seen($prompt);
typed("sleep 1000\n"); until_seen(qr/sleep 1000\r\n/); in_front('sleep');
typed("\c\\"); until_seen($prompt);
typed("echo \$?\n"); until_seen($prompt);
typed("stty tostop; /bin/echo background & until jobs | grep -q 'Stopped.*echo'; do :; done\n"); until_seen(qr/Stopped.*% $/s);
typed("fg\n"); until_seen(qr/background\r\n.*% $/s);
typed("cat <wrong\c?\c?\c?\c?\c?/dev/null; echo ab\cWcd\cU echo erased\n"); until_seen($prompt);
typed("trap 'echo size; stty size' WINCH\n"); until_seen($prompt);
my $size = pack('S4', 11, 22, 0, 0);
ioctl($master, 0x5414, $size);
typed("true\n"); until_seen(qr/11 22.*% $/s);
typed("exit 5\n"); until_seen(qr/exit\r\n$/);
waitpid $pid, 0;
print 'status ', $? >> 8, "\n";
PERL
perl /tmp/drive.pl

echo '== hangups'
perl -e '
use POSIX (); use Fcntl;
sysopen(my $m, "/dev/ptmx", O_RDWR | O_NOCTTY); my $off = pack("i", 0); ioctl($m, 0x40045431, $off); my $n = pack("i", 0); ioctl($m, 0x80045430, $n);
$| = 1; pipe(my $r, my $w);
if (!fork) {
    close $m; close $r; POSIX::setsid(); sysopen(my $s, "/dev/pts/" . unpack("i", $n), O_RDWR);
    $SIG{HUP} = sub { syswrite $w, "hung up: " . (sysread($s, my $b, 1) // $!) . "\n"; POSIX::_exit(0) };
    syswrite $w, "ready\n"; sleep 20; exit 1
}
close $w; print scalar <$r>; close $m; print <$r>; wait; print $? >> 8, "\n"'
