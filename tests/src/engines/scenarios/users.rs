//! User namespaces.

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "mapped ids",
        r#"
M="--uidmap 0:200000:65536 --gidmap 0:300000:65536"
run $M $I sh -c 'id; cat /proc/self/uid_map /proc/self/gid_map; touch /mine; stat -c "%n %u:%g" /mine /bin /proc/1; chown 70000 /mine'
run $M --user 1000:5 $I sh -c 'id; touch /tmp/mine; stat -c "%u:%g" /tmp/mine; touch /mine'
run --uidmap 0:200000:10 --gidmap 0:200000:10 --user 11 $I true 2>/dev/null; echo $(($? != 0))
"#,
    ),
    Scenario::new(
        "life with mapped ids",
        r#"
up --uidmap 0:200000:65536 --hostname inner $I sh -c "$WAITS"
says up
e exec $C sh -c 'id -u; hostname; echo x >/made; ls -ln /made | cut -d" " -f1-12'
e exec --user 7 $C id -u
echo hello | e exec -i $C cat
e cp $C:/made $W/made && cat $W/made && stat -c %u $W/made
echo in >$W/in; e cp $W/in $C:/in; e exec $C stat -c '%n %u' /in
e diff $C | sort | grep -v /dev
e stop -t 10 $C >/dev/null
inspect '{{.State.ExitCode}}'
e logs $C
e start $C >/dev/null
says up
e kill $C >/dev/null
becomes '{{.State.Status}}' exited
"#,
    ),
    Scenario::new(
        "volumes of others",
        r#"
mkdir $W/v; chmod 777 $W/v; echo open >$W/v/open; echo closed >$W/v/closed; chmod 600 $W/v/closed; echo mine >$W/v/mine; chown 200005 $W/v/mine
run --uidmap 0:200000:65536 --volume $W/v:/v $I sh -c 'cd /v; stat -c "%n %u" *; cat * 2>/dev/null; echo $?; echo new >new'
stat -c '%n %u' $W/v/new | tail -c 11
"#,
    ),
    Scenario::new(
        "a terminal with mapped ids",
        r#"pty $E run --rm --name $C $F --network none --uidmap 0:200000:65536 -it $I sh -c 'tty; id -u; stty size >/dev/null; echo done' </dev/null"#,
    ),
    Scenario::new(
        "a namespace for two",
        r#"
up --uidmap 0:200000:65536 $I sh -c "$WAITS"
says up
e run --rm $F --network none --userns container:$C $I sh -c 'id -u; cat /proc/self/uid_map'
e rm -f -t 0 $C >/dev/null
e pod create --name $C-pod --uidmap 0:200000:65536 --infra-image $I --infra-command "sleep 1000" --network none $F >/dev/null
e run --rm $F --pod $C-pod $I sh -c 'id -u; cat /proc/self/uid_map'
e pod rm -f -t 0 $C-pod >/dev/null
"#,
    ),
];
