# Datagrams.
perl -MIO::Socket::INET -e '
my $server = IO::Socket::INET->new(Proto => "udp", LocalAddr => "127.0.0.1") or die "$@";
my $port = $server->sockport;
if (!fork) { for (1..5) { my $from = $server->recv(my $buf, 100); $server->send(uc $buf, 0, $from) } exit 0 }
my $c = IO::Socket::INET->new(Proto => "udp", PeerAddr => "127.0.0.1", PeerPort => $port) or die;
for (1..5) { $c->send("message $_"); $c->recv(my $buf, 100); print "$buf\n" }
wait; print "status $?\n"; close $server;
$c->send("nobody"); select undef, undef, undef, 0.02; $c->recv(my $buf, 100) // print "error: $!\n"; $c->send("x") // print "send: $!\n"' 2>&1
# Unix sockets: a server with select, path names, permissions.
cd /tmp && perl -MIO::Socket::UNIX -MIO::Select -e '
my $path = "/tmp/perl.sock"; unlink $path;
my $server = IO::Socket::UNIX->new(Local => $path, Listen => 5) or die "$!"; print -S $path ? "socket" : "no socket", "\n";
printf "%o\n", (stat $path)[2] & 07777;
for my $n (1..3) { next if fork; my $c = IO::Socket::UNIX->new(Peer => $path) or die; print $c "client $n\n"; $c->flush; my $l = <$c>; exit($l eq "hello client $n\n" ? 0 : 1) }
my ($sel, $done, @got) = (IO::Select->new($server), 0);
while ($done < 3) { for my $h ($sel->can_read) { if ($h == $server) { $sel->add($server->accept) } else { my $l = <$h>; if (defined $l) { chomp $l; push @got, $l; print $h "hello $l\n"; $h->flush } else { $sel->remove($h); close $h; $done++ } } } }
print join(", ", sort @got), "\n"; my $bad = 0; while (wait > 0) { $bad += $? != 0 } print "bad $bad\n";
IO::Socket::UNIX->new(Local => $path, Listen => 1) or print "again: $!\n"; close $server; IO::Socket::UNIX->new(Peer => $path) or print "gone: $!\n"; unlink $path; IO::Socket::UNIX->new(Peer => $path) or print "unlinked: $!\n"' 2>&1
perl -MSocket -e 'socketpair(my $a, my $b, AF_UNIX, SOCK_DGRAM, 0) or die; send $a, "one", 0; send $a, "second", 0; recv $b, my $x, 100, 0; recv $b, my $y, 3, 0; print "$x $y\n";
socket(my $s, AF_UNIX, SOCK_STREAM, 0); connect($s, pack_sockaddr_un("/tmp/nothing")) or print "connect: $!\n"; setsockopt($a, SOL_SOCKET, SO_RCVTIMEO, pack("l!l!", 0, 20000)); recv($a, my $z, 1, 0) // print "timeout: $!\n";
print join(" ", map { unpack "i", getsockopt($a, SOL_SOCKET, $_) } SO_TYPE, SO_ERROR, SO_SNDBUF), "\n"' 2>&1
# Who passes a descriptor, and who logs where nobody listens.
perl -MSys::Syslog -e 'eval { openlog("husk", "ndelay", "user"); syslog("info", "hello"); closelog(); print "logged\n" } or print "no log: ", ($@ =~ /no connection to syslog/ ? "no connection" : $@), "\n"' 2>&1
logger hello 2>&1 | sed 's/^logger: //'
awk 'NR == 1' /proc/net/unix; ls -l /proc/self/fd/ | grep -c socket
perl -MSocket -e 'socket(my $s, 16, SOCK_RAW, 0) or die "$!"; bind($s, pack "SSLL", 16, 0, 0, 0) or die "$!"; print "netlink bound\n"; socket(my $u, 5, SOCK_DGRAM, 0) or print "no: $!\n"' 2>&1
