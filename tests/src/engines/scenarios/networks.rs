//! Networks that an engine makes: what can be seen of them where the guest has a loopback interface of its own only.
//! For a daemon with a bridge.

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
        "a published port",
        r#"
e run -d --name $C $F -p 127.0.0.1::80 $I sleep 1000 >/dev/null
e port $C | sed 's/:[0-9]*$//'
rc e rm -f $C >/dev/null
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
e exec $C sh -c 'cat /etc/resolv.conf | grep -c 127.0.0.11; grep a$ /etc/hosts'
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
