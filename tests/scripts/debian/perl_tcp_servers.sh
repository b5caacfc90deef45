# A forking TCP server, clients that talk to it, and what both see of each other.
perl -MIO::Socket::INET -e '
my $server = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", ReuseAddr => 1) or die "listen: $@";
my $port = $server->sockport;
print "listening on ", $server->sockhost, ", port ", ($port > 1023 ? "high" : "low"), "\n";
my $pid = fork // die;
if (!$pid) {
    for (1..4) {
        my $client = $server->accept or die;
        next if fork;
        close $server;
        while (my $line = <$client>) { last if $line =~ /^quit/; print $client scalar reverse(substr $line, 0, -1), "\n" }
        exit 0;
    }
    1 while wait > 0;
    exit 0;
}
for my $n (1..4) {
    my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $port, Proto => "tcp") or die "connect: $@";
    $s->autoflush(1);
    print "connected to ", $s->peerhost, " ", ($s->peerport == $port ? "same port" : "other port"), "\n";
    for my $word (qw(alpha beta gamma), "client $n") { print $s "$word\n"; my $back = <$s>; print "  $word -> $back" }
    print $s "quit\n";
    print "  end: ", defined(<$s>) ? "no" : "yes", "\n";
}
waitpid $pid, 0;
print "server status $?\n";
my $late = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => 1, Proto => "tcp");
print "refused: $!\n" unless $late;
$late = IO::Socket::INET->new(PeerAddr => "192.0.2.1", PeerPort => 80, Proto => "tcp", Timeout => 3);
print "far: $!\n" unless $late;
' 2>&1
# A megabyte through, both ways at once.
perl -MSocket -MIO::Select -e '
socket(my $l, PF_INET, SOCK_STREAM, 0) or die; setsockopt($l, SOL_SOCKET, SO_REUSEADDR, 1); bind($l, sockaddr_in(0, INADDR_LOOPBACK)) or die; listen($l, 1) or die;
my ($port) = sockaddr_in(getsockname $l);
if (!fork) { socket(my $c, PF_INET, SOCK_STREAM, 0); connect($c, sockaddr_in($port, INADDR_LOOPBACK)) or die; my ($all, $buf) = ("", "");
    $all .= $buf while sysread $c, $buf, 30000; my $at = 0; while ($at < length $all) { $at += syswrite($c, $all, 7777, $at) // die } shutdown $c, 1; exit 0 }
accept(my $s, $l) or die; my $data = join "", map { chr(65 + $_ % 26) } 1..1_000_000;
my $at = 0; while ($at < length $data) { $at += syswrite($s, $data, 65536, $at) // die } shutdown $s, 1;
my ($back, $buf) = ("", ""); $back .= $buf while sysread $s, $buf, 65536; wait;
print length $back, " ", ($back eq $data ? "same" : "different"), " status $?\n"' 2>&1
# TCP over IPv6.
perl -MSocket -e '
socket(my $l, PF_INET6, SOCK_STREAM, 0) or die "socket: $!"; bind($l, pack_sockaddr_in6(0, Socket::IN6ADDR_LOOPBACK)) or die "bind: $!"; listen($l, 5) or die;
my ($port, $ip) = unpack_sockaddr_in6(getsockname $l); print Socket::inet_ntop(AF_INET6, $ip), "\n";
if (!fork) { socket(my $c, PF_INET6, SOCK_STREAM, 0); connect($c, pack_sockaddr_in6($port, $ip)) or die "connect: $!"; syswrite $c, "over six"; exit 0 }
my $peer = accept(my $s, $l) or die; my ($pp, $pip) = unpack_sockaddr_in6($peer); sysread $s, my $buf, 100; wait; print Socket::inet_ntop(AF_INET6, $pip), " $buf $?\n"' 2>&1
# bash's own sockets, and a name.
bash -c 'exec 3<>/dev/tcp/127.0.0.1/1' 2>&1 | sed 's/.*line [0-9]*: //'
getent hosts localhost | awk '{print $2}'
