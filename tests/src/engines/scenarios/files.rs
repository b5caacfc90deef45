//! Volumes, copies in and out, what the engine sees of the root.

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "volumes",
        r#"
mkdir $W/v; echo from the host >$W/v/f
run -v $W/v:/v $I sh -c 'cat /v/f; echo from inside >/v/g; ls /v'
cat $W/v/g
run -v $W/v:/v:ro $I sh -c 'cat /v/g; echo x >/v/h; echo $?'
run -v $W/v/f:/file $I sh -c 'cat /file; echo changed >/file'
cat $W/v/f
run -v $C-n:/n $I sh -c 'echo kept >/n/f'
run -v $C-n:/n $I cat /n/f
run --mount type=tmpfs,destination=/t,tmpfs-size=1m $I sh -c 'echo x >/t/f; cat /t/f; head -c 3000000 /dev/zero >/t/g; echo $?'
"#,
    ),
    Scenario::new(
        "a volume that changes",
        r#"
mkdir $W/v
up -v $W/v:/v $I sh -c 'while [ ! -e /v/go ]; do sleep 0.05; done; cat /v/go; echo answer >/v/answer; mkfifo /v/fifo; while :; do sleep 0.05; done'
echo now >$W/v/next; mv $W/v/next $W/v/go
await test -s $W/v/answer
cat $W/v/answer
says now
e logs $C
"#,
    ),
    Scenario::new(
        "two containers share a volume",
        r#"
up -v $C-n:/n $I sh -c 'while [ ! -e /n/x ]; do sleep 0.05; done; cat /n/x; echo y >/n/y; sleep 1000'
e run --rm --name $C-2 $F --network none -v $C-n:/n $I sh -c 'echo x >/n/t; mv /n/t /n/x; while [ ! -s /n/y ]; do sleep 0.05; done; cat /n/y'
says x
e logs $C
"#,
    ),
    Scenario::new(
        "cp",
        r#"
up $I sh -c 'mkdir /d; echo inside >/d/f; ln -s f /d/l; echo up; while :; do sleep 0.05; done'
says up
echo outside >$W/f; mkdir $W/tree; echo t >$W/tree/t
rc e cp $W/f $C:/copied >/dev/null
rc e cp $W/tree $C:/home >/dev/null
e exec $C sh -c 'cat /copied /home/tree/t'
rc e cp $C:/d $W/out >/dev/null
cat $W/out/f; readlink $W/out/l
e exec $C sh -c 'i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done >/d/big'
e cp $C:/d/big - | tar -xO | md5sum
e exec $C cat /nope 2>/dev/null
echo now >$W/nope; e cp $W/nope $C:/nope >/dev/null
e exec $C cat /nope
echo changed >$W/f; e cp $W/f $C:/copied >/dev/null
e exec $C cat /copied
e stop -t 0 $C >/dev/null
e cp $C:/copied - | tar -xO
"#,
    ),
    Scenario::new(
        "cp of what a program waits for",
        r#"
up $I sh -c 'echo old >/f; cat /f; ls /home >/dev/null; while ! grep -q new /f || [ ! -e /home/g ]; do sleep 0.05; done; echo seen; while :; do sleep 0.05; done'
says old
echo new >$W/f; e cp $W/f $C:/f >/dev/null; e cp $W/f $C:/home/g >/dev/null
says seen
e logs $C
"#,
    ),
    Scenario::new(
        "what was written before a pause",
        r#"
up $I sh -c 'i=0; while :; do i=$((i+1)); echo $i >>/n; echo $i; [ $((i%50)) = 0 ] && sleep 0.02; done'
says 100
for round in 1 2 3; do
    e pause $C >/dev/null
    said=$(e logs $C | tail -n 1)
    [ $(e cp $C:/n - | tar -xO | tail -n 1) -ge $said ] && echo all of it
    e unpause $C >/dev/null
done
"#,
    ),
    Scenario::new(
        "diff",
        r#"
up $I sh -c 'echo x >/new; rm /var/poem; mkdir /d; echo y >/d/f; echo z >>/etc/group; echo up; while :; do sleep 0.05; done'
says up
e diff $C | grep -v -e ' /run' -e ' /proc' -e ' /sys' -e ' /dev' | sort
"#,
    ),
    Scenario::new(
        "commit",
        r#"
up $I sh -c 'echo kept >/kept; chmod 640 /kept; chown 1000:1001 /kept; rm -r /home; echo up; while :; do sleep 0.05; done'
says up
rc e commit $C $C-image >/dev/null 2>&1
e rm -f $C >/dev/null
run $C-image sh -c 'cat /kept; stat -c %a:%u:%g /kept; ls /home 2>/dev/null; echo $?'
e rmi $C-image >/dev/null
"#,
    ),
    Scenario::new(
        "export",
        r#"
up $I sh -c 'echo x >/new; echo up; while :; do sleep 0.05; done'
says up
e export $C | tar -xO new
"#,
    ),
];
