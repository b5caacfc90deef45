//! Networks that an engine makes, and who reaches whom in them. For a daemon with a bridge, in a network namespace of its own: `host` and
//! `at_host` run commands there, and nothing leaves it.

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "a bridge",
        r#"
talk='nc -l -p 80 >/tmp/got & until echo hi | nc 127.0.0.1 80; do sleep 0.05; done; wait; cat /tmp/got'
rc e run --rm --name $C $F $I sh -c "$talk"
e run -d --name $C $F --network bridge $I sleep 1000 >/dev/null
e exec $C sh -c 'grep -c "[^0-9.]$(hostname)\$" /etc/hosts; grep -c nameserver /etc/resolv.conf'
inspect '{{if .NetworkSettings.IPAddress}}has an address{{end}}'
rc e stop -t 0 $C >/dev/null
rc e start $C >/dev/null
inspect '{{if .NetworkSettings.IPAddress}}has an address{{end}} {{.State.Status}}'
"#,
    ),
    Scenario::new(
        "addresses and routes",
        r#"
e run -d --name $C $F $I sleep 1000 >/dev/null
address=$(inspect '{{.NetworkSettings.IPAddress}}'); mac=$(inspect '{{.NetworkSettings.MacAddress}}')
same() { sed -e "s/$address/ADDRESS/g" -e "s/$mac/MAC/gi" -e 's/^[0-9]*: eth0@if[0-9]*/N: eth0/' | tr -s ' '; }
e exec $C ip -4 addr | same
e exec $C ip -4 route | same
e exec $C ip link | same
e exec $C ip route get 172.17.0.1 | same
e exec $C ifconfig eth0 | head -3 | same
e exec $C cat /proc/net/route
e exec $C tail -n +3 /proc/net/dev | cut -d: -f1 | sort
e exec $C netstat -rn
rc e exec $C hostname -i | same
rc e exec $C ip link set eth0 down 2>/dev/null
e rm -f $C >/dev/null
e run --rm --name $C $F --network none $I sh -c 'ip -4 addr; ip -4 route; ip link | grep -c eth; nc 172.17.0.1 80 </dev/null 2>&1; echo $?'
"#,
    ),
    Scenario::new(
        "a published port",
        r#"
e run -d --name $C $F -p 127.0.0.1::80 $I sh -c \
    'mkdir /www; head -c 3000000 /dev/zero >/www/f; echo served >/www/g; httpd -f -p 80 -h /www' >/dev/null
port=$(e port $C 80 | sed 's/.*://')
e port $C 80 | sed 's/:[0-9]*$//'
get() { host busybox wget -qO- http://127.0.0.1:$port/$1; }
await get g >/dev/null
get g
get f | md5sum
for i in 1 2 3 4 5 6 7 8; do get f | md5sum & done; wait
get nothing 2>/dev/null; echo $?
e stop -t 0 $C >/dev/null
get g 2>/dev/null; echo $?
e start $C >/dev/null
port=$(e port $C 80 | sed 's/.*://')
await get g >/dev/null
get g
rc e rm -f $C >/dev/null
"#,
    ),
    Scenario::new(
        "out of the container",
        r#"
e run -d --name $C $F $I sleep 1000 >/dev/null
port=$((10000 + $$ % 20000))
at_host busybox nc -l -p $port >$W/tcp </dev/null & server=$!
await e exec $C sh -c "echo by tcp | nc 172.17.0.1 $port" 2>/dev/null
wait $server
cat $W/tcp
at_host perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => "172.17.0.1", LocalPort => $ARGV[0], Proto => "udp");
    while ($s->recv($m, 2000)) { $s->send("\0\3\0\1by udp\n") if substr($m, 1, 1) eq "\1" }' $port & server=$!
await e exec $C tftp -g -l /tmp/got -r f 172.17.0.1 $port >/dev/null 2>&1
kill $server
e exec $C cat /tmp/got
# Nobody listens; nobody is there; no route leads there.
rc e exec $C nc 172.17.0.1 1 </dev/null 2>&1
rc e exec $C sh -c 'nc -w 1 172.17.255.254 80 </dev/null 2>/dev/null'
rc e exec $C ping -c 1 -q 172.17.0.1 | grep received
rc e exec $C ping -c 1 -q 127.0.0.1 | grep received
"#,
    ),
    Scenario::new(
        "by name",
        r#"
e network create $C-net >/dev/null
e run -d --name $C $F --network $C-net --network-alias web $I sh -c 'mkdir /www; echo served >/www/g; httpd -f -p 80 -h /www' >/dev/null
e run -d --name $C-2 $F --network $C-net $I sleep 1000 >/dev/null
for name in web $C $C.$C-net; do
    await e exec $C-2 wget -qO- http://$name/g >/dev/null 2>&1
    e exec $C-2 wget -qO- http://$name/g
done
address=$(inspect "{{(index .NetworkSettings.Networks \"$C-net\").IPAddress}}")
e exec $C-2 nslookup web | sed "s/$address/ADDRESS/" | grep -e ^Server -e ^Name -e ADDRESS
e exec $C-2 ping -c 1 -q web | grep received
e network disconnect $C-net $C
rc e exec $C-2 sh -c '! ping -c 1 -w 2 web >/dev/null 2>&1'
e network connect --alias again $C-net $C
await e exec $C-2 wget -qO- http://again/g >/dev/null 2>&1
e exec $C-2 wget -qO- http://again/g
e rm -f $C $C-2 >/dev/null
rc e network rm $C-net >/dev/null
"#,
    ),
    Scenario::new(
        "one network of two containers",
        r#"
e run -d --name $C $F -p 127.0.0.1::81 $I sh -c 'mkdir /www; echo first >/www/g; httpd -f -p 80 -h /www' >/dev/null
e run -d --name $C-2 $F --network container:$C $I sh -c 'mkdir /www; echo second >/www/g; httpd -f -p 81 -h /www' >/dev/null
await e exec $C-2 wget -qO- http://127.0.0.1/g >/dev/null 2>&1
await e exec $C wget -qO- http://127.0.0.1:81/g >/dev/null 2>&1
e exec $C-2 wget -qO- http://127.0.0.1/g
e exec $C wget -qO- http://127.0.0.1:81/g
host busybox wget -qO- http://127.0.0.1:$(e port $C 81 | sed 's/.*://')/g
[ "$(e exec $C ip -4 addr show eth0)" = "$(e exec $C-2 ip -4 addr show eth0)" ] && echo the same address
rc e exec $C-2 sh -c 'nc -l -p 80 </dev/null 2>&1'
e rm -f $C-2 $C >/dev/null
"#,
    ),
    Scenario::new(
        "the network of the host",
        r#"
port=$((10000 + $$ % 20000))
mkdir $W/www; echo of the host >$W/www/g
at_host busybox httpd -f -p 127.0.0.1:$port -h $W/www & server=$!
await e run --rm --name $C $F --network host $I wget -qO- http://127.0.0.1:$port/g
kill $server
e run -d --name $C $F --network host $I sh -c "mkdir /www; echo of the container >/www/g; httpd -f -p 127.0.0.1:$port -h /www" >/dev/null
await host busybox wget -qO- http://127.0.0.1:$port/g
[ "$(e exec $C ip -4 addr show docker0)" = "$(host busybox ip -4 addr show docker0)" ] && echo the same addresses
e rm -f $C >/dev/null
host busybox wget -qO- http://127.0.0.1:$port/g 2>/dev/null; echo $?
"#,
    ),
    Scenario::new(
        "none and host",
        r#"
rc e run --rm --name $C $F --network none $I sh -c 'tail -n +3 /proc/net/dev | cut -d: -f1; hostname | wc -c'
[ "$(e run --rm --name $C $F --network host $I hostname)" = "$(hostname)" ] && echo the host name
"#,
    ),
    Scenario::new(
        "another container's",
        r#"
e run -d --name $C $F $I sleep 1000 >/dev/null
[ "$(e run --rm --name $C-2 $F --network container:$C $I hostname)" = "$(e exec $C hostname)" ] && echo the host name
rc e run --rm --name $C-2 $F --network container:$C $I true
e rm -f $C >/dev/null
rc e run --rm --name $C-2 $F --network container:$C $I true 2>/dev/null
"#,
    ),
    Scenario::new(
        "one of the user's",
        r#"
e network create $C-net >/dev/null
e run -d --name $C $F --network $C-net --network-alias web --add-host a:1.2.3.4 $I sleep 1000 >/dev/null
e exec $C sh -c 'cat /etc/resolv.conf | grep -c 127.0.0.11; grep -w 1.2.3.4 /etc/hosts'
rc e network connect bridge $C
inspect '{{len .NetworkSettings.Networks}}'
rc e network disconnect bridge $C
inspect '{{len .NetworkSettings.Networks}}'
rc e exec $C true
e rm -f $C >/dev/null
rc e network rm $C-net >/dev/null
"#,
    ),
];
