# System V objects by util-linux's tools and by perl.
ipcs -l
for kind in '-M 70000' '-Q' '-S 3'; do ipcmk $kind -p 0640 | sed 's/0x[0-9a-f]*/KEY/'; done
ipcs | awk '{ print $2, $3, $4, $5, $6 }' | sed 's/0x[0-9a-f]*/KEY/'
ipcs -m -i 0 | sed -E 's/=.*(20[0-9][0-9]|Not set).*//; s/key: .*//; s/pid=[0-9]*//g'
ipcs -u
cat /proc/sysvipc/sem | head -n 1; ls /proc/sysvipc
cat /proc/sys/kernel/{msgmax,msgmnb,msgmni,sem,shmall,shmmax,shmmni} /proc/sys/fs/mqueue/*
ipcrm -m 0 -q 0 -s 0; ipcs | wc -l
perl -e '
    use IPC::SysV qw(IPC_PRIVATE IPC_CREAT IPC_NOWAIT IPC_RMID IPC_STAT S_IRUSR S_IWUSR SETALL GETALL GETVAL SEM_UNDO);
    my $q = msgget(IPC_PRIVATE, IPC_CREAT | S_IRUSR | S_IWUSR); my $s = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600);
    my $m = shmget(IPC_PRIVATE, 1000, IPC_CREAT | 0600);
    semctl($s, 0, SETALL, pack("s2", 0, 1));
    unless (my $child = fork) {
        semop($s, pack("s3", 0, -1, SEM_UNDO)); shmread($m, my $text, 0, 6); msgsnd($q, pack("l! a*", 7, "got $text"), 0);
        semop($s, pack("s3", 1, 5, 0)); exit 0 }
    shmwrite($m, "memory", 0, 6); semop($s, pack("s3", 0, 1, 0));
    print msgrcv($q, my $got, 100, 7, 0), " ", join(" ", unpack("l! a*", $got)), "\n"; wait;
    semctl($s, 0, GETALL, my $all = ""); print join(" ", unpack("s2", $all)), "\n";
    print defined msgrcv($q, $got, 100, 0, IPC_NOWAIT) ? "more" : "$!", "\n";
    msgctl($q, IPC_STAT, my $stat = ""); print length $stat, "\n";
    print msgctl($q, IPC_RMID, 0), semctl($s, 0, IPC_RMID, 0), shmctl($m, IPC_RMID, 0), "\n"; print semctl($s, 0, GETVAL, 0) // "$!", "\n"'
