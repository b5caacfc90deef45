//! The one table of system calls: number, name, arguments and the libOS's handler.
//!
//! `syscall_table!(callback)` hands all rows to `callback!`. The libOS's dispatcher, the recorder's decoder
//! and the coverage list are generated from it, so a row is the only place where a call is described.
//!
//! A row is `NUMBER NAME(ARG: KIND, ...) => [HANDLER];`. The handler path is relative to the kernel
//! crate and empty while the libOS does not have the call (it then answers `ENOSYS`, counted). Kinds are
//! the identifiers of [`ArgKind`]; the kernel maps each to the Rust type its handlers take.

/// Hands every system call row to `$callback!`; see the module `linux::syscalls`.
#[macro_export]
macro_rules! syscall_table {
    ($callback:ident) => {
        $callback! {
            0 read(fd: Fd, buf: BufOut, count: Len) => [fs::rw::read];
            1 write(fd: Fd, buf: BufIn, count: Len) => [fs::rw::write];
            2 open(path: Path, flags: OpenFlags, mode: Mode) => [fs::open::open];
            3 close(fd: Fd) => [fs::open::close];
            4 stat(path: Path, statbuf: Stat) => [fs::stat::stat];
            5 fstat(fd: Fd, statbuf: Stat) => [fs::stat::fstat];
            6 lstat(path: Path, statbuf: Stat) => [fs::stat::lstat];
            7 poll(fds: PollFds, nfds: Len, timeout: Int) => [fs::poll_calls::poll];
            8 lseek(fd: Fd, offset: Off, whence: Whence) => [fs::rw::lseek];
            9 mmap(addr: Addr, length: Len, prot: Prot, flags: MapFlags, fd: Fd, offset: Off) => [mm::syscalls::mmap];
            10 mprotect(addr: Addr, length: Len, prot: Prot) => [mm::syscalls::mprotect];
            11 munmap(addr: Addr, length: Len) => [mm::syscalls::munmap];
            12 brk(addr: Addr) => [mm::syscalls::brk];
            13 rt_sigaction(signum: Signal, act: SigActionIn, oldact: SigActionOut, sigsetsize: Len) => [signal::action::rt_sigaction];
            14 rt_sigprocmask(how: SigHow, set: SigSet, oldset: SigSetOut, sigsetsize: Len) => [signal::mask::rt_sigprocmask];
            15 rt_sigreturn() => [signal::deliver::rt_sigreturn];
            16 ioctl(fd: Fd, request: Ioctl, argp: IoctlArg) => [fs::fdops::ioctl];
            17 pread64(fd: Fd, buf: BufOut, count: Len, offset: Off) => [fs::rw::pread64];
            18 pwrite64(fd: Fd, buf: BufIn, count: Len, offset: Off) => [fs::rw::pwrite64];
            19 readv(fd: Fd, iov: Iov, iovcnt: Len) => [fs::rw::readv];
            20 writev(fd: Fd, iov: Iov, iovcnt: Len) => [fs::rw::writev];
            21 access(path: Path, mode: AccessMode) => [fs::stat::access];
            22 pipe(pipefd: FdPair) => [fs::pipe::pipe];
            23 select(nfds: Int, readfds: Ptr, writefds: Ptr, exceptfds: Ptr, timeout: TimevalIn) => [fs::select::select];
            24 sched_yield() => [sched::sched_yield];
            25 mremap(old_address: Addr, old_size: Len, new_size: Len, flags: MremapFlags, new_address: Addr) => [mm::syscalls::mremap];
            26 msync(addr: Addr, length: Len, flags: MsyncFlags) => [mm::syscalls::msync];
            27 mincore(addr: Addr, length: Len, vec: Ptr) => [mm::syscalls::mincore];
            28 madvise(addr: Addr, length: Len, advice: Advice) => [mm::syscalls::madvise];
            29 shmget(key: Int, size: Len, shmflg: Hex) => [ipc::shm::shmget];
            30 shmat(shmid: Int, shmaddr: Addr, shmflg: Hex) => [ipc::shm::shmat];
            31 shmctl(shmid: Int, cmd: Int, buf: Ptr) => [ipc::shm::shmctl];
            32 dup(oldfd: Fd) => [fs::fdops::dup];
            33 dup2(oldfd: Fd, newfd: Fd) => [fs::fdops::dup2];
            34 pause() => [signal::wait::pause];
            35 nanosleep(rqtp: Timespec, rmtp: Ptr) => [time::nanosleep];
            36 getitimer(which: ItimerWhich, value: ItimervalOut) => [time::getitimer];
            37 alarm(seconds: Uint) => [time::alarm];
            38 setitimer(which: ItimerWhich, new_value: ItimervalIn, old_value: ItimervalOut) => [time::setitimer];
            39 getpid() => [process::ids::getpid];
            40 sendfile(out_fd: Fd, in_fd: Fd, offset: OffIn, count: Len) => [fs::transfer::sendfile];
            41 socket(domain: SockDomain, kind: SockType, protocol: SockProto) => [net::calls::socket];
            42 connect(fd: Fd, addr: SockAddrIn, addrlen: Int) => [net::calls::connect];
            43 accept(fd: Fd, addr: SockAddrOut, addrlen: SockLen) => [net::calls::accept];
            44 sendto(fd: Fd, buf: BufIn, len: Len, flags: MsgFlags, addr: SockAddrIn, addrlen: Int) => [net::calls::sendto];
            45 recvfrom(fd: Fd, buf: BufOut, len: Len, flags: MsgFlags, addr: SockAddrOut, addrlen: SockLen) => [net::calls::recvfrom];
            46 sendmsg(fd: Fd, msg: MsgHdr, flags: MsgFlags) => [net::calls::sendmsg];
            47 recvmsg(fd: Fd, msg: MsgHdr, flags: MsgFlags) => [net::calls::recvmsg];
            48 shutdown(fd: Fd, how: ShutHow) => [net::calls::shutdown];
            49 bind(fd: Fd, addr: SockAddrIn, addrlen: Int) => [net::calls::bind];
            50 listen(fd: Fd, backlog: Int) => [net::calls::listen];
            51 getsockname(fd: Fd, addr: SockAddrOut, addrlen: SockLen) => [net::calls::getsockname];
            52 getpeername(fd: Fd, addr: SockAddrOut, addrlen: SockLen) => [net::calls::getpeername];
            53 socketpair(domain: SockDomain, kind: SockType, protocol: SockProto, sv: FdPair) => [net::calls::socketpair];
            54 setsockopt(fd: Fd, level: SockLevel, optname: SockOpt, optval: SockOptIn, optlen: Int) => [net::calls::setsockopt];
            55 getsockopt(fd: Fd, level: SockLevel, optname: SockOpt, optval: SockOptOut, optlen: SockLen) => [net::calls::getsockopt];
            56 clone(flags: CloneFlags, stack: Addr, parent_tid: Ptr, child_tid: Ptr, tls: Addr) => [process::clone::clone];
            57 fork() => [process::clone::fork];
            58 vfork() => [process::clone::vfork];
            59 execve(path: Path, argv: Argv, envp: Envp) => [process::exec::execve];
            60 exit(status: Int) => [process::exit::exit];
            61 wait4(pid: Pid, wstatus: WaitStatus, options: WaitOptions, rusage: Ptr) => [process::wait::wait4];
            62 kill(pid: Pid, sig: Signal) => [signal::kill::kill];
            63 uname(buf: Utsname) => [process::sysinfo::uname];
            64 semget(key: Int, nsems: Int, semflg: Hex) => [ipc::sem::semget];
            65 semop(semid: Int, sops: Ptr, nsops: Len) => [ipc::sem::semop];
            66 semctl(semid: Int, semnum: Int, cmd: Int, arg: Hex) => [ipc::sem::semctl];
            67 shmdt(shmaddr: Addr) => [ipc::shm::shmdt];
            68 msgget(key: Int, msgflg: Hex) => [ipc::msg::msgget];
            69 msgsnd(msqid: Int, msgp: Ptr, msgsz: Len, msgflg: Hex) => [ipc::msg::msgsnd];
            70 msgrcv(msqid: Int, msgp: Ptr, msgsz: Len, msgtyp: Off, msgflg: Hex) => [ipc::msg::msgrcv];
            71 msgctl(msqid: Int, cmd: Int, buf: Ptr) => [ipc::msg::msgctl];
            72 fcntl(fd: Fd, cmd: FcntlCmd, arg: FcntlArg) => [fs::fdops::fcntl];
            73 flock(fd: Fd, operation: FlockOp) => [fs::locks::flock];
            74 fsync(fd: Fd) => [fs::attr::fsync];
            75 fdatasync(fd: Fd) => [fs::attr::fdatasync];
            76 truncate(path: Path, length: Off) => [fs::attr::truncate];
            77 ftruncate(fd: Fd, length: Off) => [fs::attr::ftruncate];
            78 getdents(fd: Fd, dirp: BufOut, count: Len) => [fs::dir::getdents];
            79 getcwd(buf: BufOut, size: Len) => [fs::dir::getcwd];
            80 chdir(path: Path) => [fs::dir::chdir];
            81 fchdir(fd: Fd) => [fs::dir::fchdir];
            82 rename(oldpath: Path, newpath: Path) => [fs::link::rename];
            83 mkdir(path: Path, mode: Mode) => [fs::dir::mkdir];
            84 rmdir(path: Path) => [fs::dir::rmdir];
            85 creat(path: Path, mode: Mode) => [fs::open::creat];
            86 link(oldpath: Path, newpath: Path) => [fs::link::link];
            87 unlink(path: Path) => [fs::link::unlink];
            88 symlink(target: Name, linkpath: Path) => [fs::link::symlink];
            89 readlink(path: Path, buf: BufOut, bufsiz: Len) => [fs::stat::readlink];
            90 chmod(path: Path, mode: Mode) => [fs::attr::chmod];
            91 fchmod(fd: Fd, mode: Mode) => [fs::attr::fchmod];
            92 chown(path: Path, owner: Uid, group: Uid) => [fs::attr::chown];
            93 fchown(fd: Fd, owner: Uid, group: Uid) => [fs::attr::fchown];
            94 lchown(path: Path, owner: Uid, group: Uid) => [fs::attr::lchown];
            95 umask(mask: Mode) => [fs::attr::umask];
            96 gettimeofday(tv: TimevalOut, tz: Ptr) => [time::gettimeofday];
            97 getrlimit(resource: Resource, rlim: RlimitOut) => [process::limits::getrlimit];
            98 getrusage(who: RusageWho, usage: Ptr) => [time::getrusage];
            99 sysinfo(info: Ptr) => [process::sysinfo::sysinfo];
            100 times(buf: Ptr) => [time::times];
            101 ptrace(request: Hex, pid: Pid, addr: Hex, data: Hex) => [process::ptrace::ptrace];
            102 getuid() => [process::users::getuid];
            103 syslog() => [];
            104 getgid() => [process::users::getgid];
            105 setuid(uid: Uid) => [process::users::setuid];
            106 setgid(gid: Uid) => [process::users::setgid];
            107 geteuid() => [process::users::geteuid];
            108 getegid() => [process::users::getegid];
            109 setpgid(pid: Pid, pgid: Pid) => [process::ids::setpgid];
            110 getppid() => [process::ids::getppid];
            111 getpgrp() => [process::ids::getpgrp];
            112 setsid() => [process::ids::setsid];
            113 setreuid(ruid: Uid, euid: Uid) => [process::users::setreuid];
            114 setregid(rgid: Uid, egid: Uid) => [process::users::setregid];
            115 getgroups(size: Int, list: Ptr) => [process::users::getgroups];
            116 setgroups(size: Len, list: Ptr) => [process::users::setgroups];
            117 setresuid(ruid: Uid, euid: Uid, suid: Uid) => [process::users::setresuid];
            118 getresuid(ruid: UidOut, euid: UidOut, suid: UidOut) => [process::users::getresuid];
            119 setresgid(rgid: Uid, egid: Uid, sgid: Uid) => [process::users::setresgid];
            120 getresgid(rgid: UidOut, egid: UidOut, sgid: UidOut) => [process::users::getresgid];
            121 getpgid(pid: Pid) => [process::ids::getpgid];
            122 setfsuid(uid: Uid) => [process::users::setfsuid];
            123 setfsgid(gid: Uid) => [process::users::setfsgid];
            124 getsid(pid: Pid) => [process::ids::getsid];
            125 capget(hdrp: Ptr, datap: Ptr) => [process::capabilities::capget];
            126 capset(hdrp: Ptr, datap: Ptr) => [process::capabilities::capset];
            127 rt_sigpending(set: SigSetOut, sigsetsize: Len) => [signal::mask::rt_sigpending];
            128 rt_sigtimedwait(set: SigSet, info: Siginfo, timeout: Timespec, sigsetsize: Len) => [signal::wait::rt_sigtimedwait];
            129 rt_sigqueueinfo(pid: Pid, sig: Signal, info: Ptr) => [signal::kill::rt_sigqueueinfo];
            130 rt_sigsuspend(set: SigSet, sigsetsize: Len) => [signal::wait::rt_sigsuspend];
            131 sigaltstack(ss: StackIn, old_ss: StackOut) => [signal::altstack::sigaltstack];
            132 utime(path: Path, times: Ptr) => [fs::attr::utime];
            133 mknod(path: Path, mode: NodeMode, dev: Dev) => [fs::link::mknod];
            134 uselib() => [];
            135 personality(persona: Hex) => [process::prctl::personality];
            136 ustat() => [];
            137 statfs(path: Path, buf: Ptr) => [fs::stat::statfs];
            138 fstatfs(fd: Fd, buf: Ptr) => [fs::stat::fstatfs];
            139 sysfs() => [];
            140 getpriority(which: PrioWhich, who: Int) => [sched::getpriority];
            141 setpriority(which: PrioWhich, who: Int, prio: Int) => [sched::setpriority];
            142 sched_setparam(pid: Pid, param: SchedParam) => [sched::sched_setparam];
            143 sched_getparam(pid: Pid, param: Ptr) => [sched::sched_getparam];
            144 sched_setscheduler(pid: Pid, policy: SchedPolicy, param: SchedParam) => [sched::sched_setscheduler];
            145 sched_getscheduler(pid: Pid) => [sched::sched_getscheduler];
            146 sched_get_priority_max(policy: SchedPolicy) => [sched::sched_get_priority_max];
            147 sched_get_priority_min(policy: SchedPolicy) => [sched::sched_get_priority_min];
            148 sched_rr_get_interval(pid: Pid, tp: TimespecOut) => [sched::sched_rr_get_interval];
            149 mlock(addr: Addr, length: Len) => [mm::syscalls::mlock];
            150 munlock(addr: Addr, length: Len) => [mm::syscalls::munlock];
            151 mlockall(flags: MlockallFlags) => [mm::syscalls::mlockall];
            152 munlockall() => [mm::syscalls::munlockall];
            153 vhangup() => [tty::job::vhangup];
            154 modify_ldt() => [];
            155 pivot_root() => [];
            156 _sysctl() => [];
            157 prctl(option: Prctl, arg2: Hex, arg3: Hex, arg4: Hex, arg5: Hex) => [process::prctl::prctl];
            158 arch_prctl(code: ArchCode, addr: Addr) => [process::prctl::arch_prctl];
            159 adjtimex(buf: Ptr) => [time::adjtimex];
            160 setrlimit(resource: Resource, rlim: RlimitIn) => [process::limits::setrlimit];
            161 chroot(path: Path) => [fs::dir::chroot];
            162 sync() => [fs::attr::sync];
            163 acct() => [];
            164 settimeofday(tv: TimevalIn, tz: Ptr) => [time::settimeofday];
            165 mount(source: Path, target: Path, fstype: Name, flags: MountFlags, data: Ptr) => [fs::mount_calls::mount];
            166 umount2(target: Path, flags: UmountFlags) => [fs::mount_calls::umount2];
            167 swapon() => [];
            168 swapoff() => [];
            169 reboot(magic: Hex, magic2: Hex, op: Hex, arg: Addr) => [process::reboot::reboot];
            170 sethostname(name: BufIn, len: Len) => [process::sysinfo::sethostname];
            171 setdomainname(name: BufIn, len: Len) => [process::sysinfo::setdomainname];
            172 iopl() => [];
            173 ioperm() => [];
            174 create_module() => [];
            175 init_module() => [];
            176 delete_module() => [];
            177 get_kernel_syms() => [];
            178 query_module() => [];
            179 quotactl() => [];
            180 nfsservctl() => [];
            181 getpmsg() => [];
            182 putpmsg() => [];
            183 afs_syscall() => [];
            184 tuxcall() => [];
            185 security() => [];
            186 gettid() => [process::ids::gettid];
            187 readahead(fd: Fd, offset: Off, count: Len) => [fs::attr::readahead];
            188 setxattr(path: Path, name: Name, value: BufIn, size: Len, flags: XattrFlags) => [fs::xattr::setxattr];
            189 lsetxattr(path: Path, name: Name, value: BufIn, size: Len, flags: XattrFlags) => [fs::xattr::lsetxattr];
            190 fsetxattr(fd: Fd, name: Name, value: BufIn, size: Len, flags: XattrFlags) => [fs::xattr::fsetxattr];
            191 getxattr(path: Path, name: Name, value: BufOut, size: Len) => [fs::xattr::getxattr];
            192 lgetxattr(path: Path, name: Name, value: BufOut, size: Len) => [fs::xattr::lgetxattr];
            193 fgetxattr(fd: Fd, name: Name, value: BufOut, size: Len) => [fs::xattr::fgetxattr];
            194 listxattr(path: Path, list: BufOut, size: Len) => [fs::xattr::listxattr];
            195 llistxattr(path: Path, list: BufOut, size: Len) => [fs::xattr::llistxattr];
            196 flistxattr(fd: Fd, list: BufOut, size: Len) => [fs::xattr::flistxattr];
            197 removexattr(path: Path, name: Name) => [fs::xattr::removexattr];
            198 lremovexattr(path: Path, name: Name) => [fs::xattr::lremovexattr];
            199 fremovexattr(fd: Fd, name: Name) => [fs::xattr::fremovexattr];
            200 tkill(tid: Pid, sig: Signal) => [signal::kill::tkill];
            201 time(tloc: Ptr) => [time::time];
            202 futex(uaddr: Addr, op: FutexOp, val: Uint, timeout: Hex, uaddr2: Addr, val3: Uint) => [futex::futex];
            203 sched_setaffinity(pid: Pid, len: Len, mask: Ptr) => [sched::sched_setaffinity];
            204 sched_getaffinity(pid: Pid, len: Len, mask: Ptr) => [sched::sched_getaffinity];
            205 set_thread_area() => [];
            206 io_setup() => [];
            207 io_destroy() => [];
            208 io_getevents() => [];
            209 io_submit() => [];
            210 io_cancel() => [];
            211 get_thread_area() => [];
            212 lookup_dcookie() => [];
            213 epoll_create(size: Int) => [fs::epoll::epoll_create];
            214 epoll_ctl_old() => [];
            215 epoll_wait_old() => [];
            216 remap_file_pages() => [];
            217 getdents64(fd: Fd, dirp: BufOut, count: Len) => [fs::dir::getdents64];
            218 set_tid_address(tidptr: Ptr) => [futex::set_tid_address];
            219 restart_syscall() => [signal::restart::restart_syscall];
            220 semtimedop(semid: Int, sops: Ptr, nsops: Len, timeout: Timespec) => [ipc::sem::semtimedop];
            221 fadvise64(fd: Fd, offset: Off, len: Off, advice: Fadvice) => [fs::attr::fadvise64];
            222 timer_create(clockid: Clock, sevp: Ptr, timerid: IntOut) => [time::timer_create];
            223 timer_settime(timerid: Int, flags: TimerFlags, new_value: ItimerspecIn, old_value: ItimerspecOut) => [time::timer_settime];
            224 timer_gettime(timerid: Int, value: ItimerspecOut) => [time::timer_gettime];
            225 timer_getoverrun(timerid: Int) => [time::timer_getoverrun];
            226 timer_delete(timerid: Int) => [time::timer_delete];
            227 clock_settime(clockid: Clock, tp: Timespec) => [time::clock_settime];
            228 clock_gettime(clockid: Clock, tp: TimespecOut) => [time::clock_gettime];
            229 clock_getres(clockid: Clock, res: TimespecOut) => [time::clock_getres];
            230 clock_nanosleep(clockid: Clock, flags: TimerFlags, rqtp: Timespec, rmtp: Ptr) => [time::clock_nanosleep];
            231 exit_group(status: Int) => [process::exit::exit_group];
            232 epoll_wait(epfd: Fd, events: EpollEvents, maxevents: Int, timeout: Int) => [fs::epoll::epoll_wait];
            233 epoll_ctl(epfd: Fd, op: EpollOp, fd: Fd, event: EpollEvent) => [fs::epoll::epoll_ctl];
            234 tgkill(tgid: Pid, tid: Pid, sig: Signal) => [signal::kill::tgkill];
            235 utimes(path: Path, times: Timevals) => [fs::attr::utimes];
            236 vserver() => [];
            237 mbind() => [];
            238 set_mempolicy() => [];
            239 get_mempolicy() => [];
            240 mq_open(name: Path, oflag: OpenFlags, mode: Mode, attr: Ptr) => [ipc::mqueue::mq_open];
            241 mq_unlink(name: Path) => [ipc::mqueue::mq_unlink];
            242 mq_timedsend(mqdes: Fd, msg: Ptr, len: Len, prio: Uint, timeout: Timespec) => [ipc::mqueue::mq_timedsend];
            243 mq_timedreceive(mqdes: Fd, msg: Ptr, len: Len, prio: Ptr, timeout: Timespec) => [ipc::mqueue::mq_timedreceive];
            244 mq_notify(mqdes: Fd, sevp: Ptr) => [ipc::mqueue::mq_notify];
            245 mq_getsetattr(mqdes: Fd, newattr: Ptr, oldattr: Ptr) => [ipc::mqueue::mq_getsetattr];
            246 kexec_load() => [];
            247 waitid(which: IdType, upid: Pid, infop: Siginfo, options: WaitOptions, rusage: Ptr) => [process::wait::waitid];
            248 add_key() => [];
            249 request_key() => [];
            250 keyctl() => [];
            251 ioprio_set(which: Int, who: Int, ioprio: Int) => [sched::ioprio::ioprio_set];
            252 ioprio_get(which: Int, who: Int) => [sched::ioprio::ioprio_get];
            253 inotify_init() => [fs::inotify::inotify_init];
            254 inotify_add_watch(fd: Fd, pathname: Path, mask: Hex) => [fs::inotify::inotify_add_watch];
            255 inotify_rm_watch(fd: Fd, wd: Int) => [fs::inotify::inotify_rm_watch];
            256 migrate_pages() => [];
            257 openat(dirfd: DirFd, path: Path, flags: OpenFlags, mode: Mode) => [fs::open::openat];
            258 mkdirat(dirfd: DirFd, path: Path, mode: Mode) => [fs::dir::mkdirat];
            259 mknodat(dirfd: DirFd, path: Path, mode: NodeMode, dev: Dev) => [fs::link::mknodat];
            260 fchownat(dirfd: DirFd, path: Path, owner: Uid, group: Uid, flags: AtFlags) => [fs::attr::fchownat];
            261 futimesat(dirfd: DirFd, path: Path, times: Timevals) => [fs::attr::futimesat];
            262 newfstatat(dirfd: DirFd, path: Path, statbuf: Stat, flags: AtFlags) => [fs::stat::newfstatat];
            263 unlinkat(dirfd: DirFd, path: Path, flags: AtFlags) => [fs::link::unlinkat];
            264 renameat(olddirfd: DirFd, oldpath: Path, newdirfd: DirFd, newpath: Path) => [fs::link::renameat];
            265 linkat(olddirfd: DirFd, oldpath: Path, newdirfd: DirFd, newpath: Path, flags: AtFlags) => [fs::link::linkat];
            266 symlinkat(target: Name, newdirfd: DirFd, linkpath: Path) => [fs::link::symlinkat];
            267 readlinkat(dirfd: DirFd, path: Path, buf: BufOut, bufsiz: Len) => [fs::stat::readlinkat];
            268 fchmodat(dirfd: DirFd, path: Path, mode: Mode) => [fs::attr::fchmodat];
            269 faccessat(dirfd: DirFd, path: Path, mode: AccessMode) => [fs::stat::faccessat];
            270 pselect6(nfds: Int, readfds: Ptr, writefds: Ptr, exceptfds: Ptr, timeout: Timespec, sigmask: Ptr) => [fs::select::pselect6];
            271 ppoll(fds: PollFds, nfds: Len, timeout: Timespec, sigmask: SigSet, sigsetsize: Len) => [fs::poll_calls::ppoll];
            272 unshare(flags: CloneFlags) => [process::namespaces::unshare];
            273 set_robust_list(head: Addr, len: Len) => [futex::set_robust_list];
            274 get_robust_list(pid: Pid, head: Ptr, len: Ptr) => [futex::get_robust_list];
            275 splice(fd_in: Fd, off_in: OffIn, fd_out: Fd, off_out: OffIn, len: Len, flags: SpliceFlags) => [fs::pipe::splice];
            276 tee(fd_in: Fd, fd_out: Fd, len: Len, flags: SpliceFlags) => [fs::pipe::tee];
            277 sync_file_range(fd: Fd, offset: Off, nbytes: Off, flags: Hex) => [fs::attr::sync_file_range];
            278 vmsplice(fd: Fd, iov: Iov, nr_segs: Len, flags: SpliceFlags) => [fs::pipe::vmsplice];
            279 move_pages() => [];
            280 utimensat(dirfd: DirFd, path: Path, times: Timespecs, flags: AtFlags) => [fs::attr::utimensat];
            281 epoll_pwait(epfd: Fd, events: EpollEvents, maxevents: Int, timeout: Int, sigmask: SigSet, sigsetsize: Len) => [fs::epoll::epoll_pwait];
            282 signalfd(fd: Fd, mask: SigSet, sizemask: Len) => [fs::signalfd::signalfd];
            283 timerfd_create(clockid: Clock, flags: TfdFlags) => [fs::timerfd::timerfd_create];
            284 eventfd(count: Uint) => [fs::eventfd::eventfd];
            285 fallocate(fd: Fd, mode: FallocMode, offset: Off, len: Off) => [fs::attr::fallocate];
            286 timerfd_settime(fd: Fd, flags: TfdSetFlags, new_value: ItimerspecIn, old_value: ItimerspecOut) => [fs::timerfd::timerfd_settime];
            287 timerfd_gettime(fd: Fd, value: ItimerspecOut) => [fs::timerfd::timerfd_gettime];
            288 accept4(fd: Fd, addr: SockAddrOut, addrlen: SockLen, flags: SockFlags) => [net::calls::accept4];
            289 signalfd4(fd: Fd, mask: SigSet, sizemask: Len, flags: SfdFlags) => [fs::signalfd::signalfd4];
            290 eventfd2(count: Uint, flags: EfdFlags) => [fs::eventfd::eventfd2];
            291 epoll_create1(flags: EpollFlags) => [fs::epoll::epoll_create1];
            292 dup3(oldfd: Fd, newfd: Fd, flags: FdFlags) => [fs::fdops::dup3];
            293 pipe2(pipefd: FdPair, flags: FdFlags) => [fs::pipe::pipe2];
            294 inotify_init1(flags: Hex) => [fs::inotify::inotify_init1];
            295 preadv(fd: Fd, iov: Iov, iovcnt: Len, pos_l: Off, pos_h: Off) => [fs::rw::preadv];
            296 pwritev(fd: Fd, iov: Iov, iovcnt: Len, pos_l: Off, pos_h: Off) => [fs::rw::pwritev];
            297 rt_tgsigqueueinfo(tgid: Pid, tid: Pid, sig: Signal, info: Ptr) => [signal::kill::rt_tgsigqueueinfo];
            298 perf_event_open() => [];
            299 recvmmsg(fd: Fd, msgvec: Ptr, vlen: Uint, flags: MsgFlags, timeout: Ptr) => [net::calls::recvmmsg];
            300 fanotify_init() => [];
            301 fanotify_mark() => [];
            302 prlimit64(pid: Pid, resource: Resource, new_limit: RlimitIn, old_limit: RlimitOut) => [process::limits::prlimit64];
            303 name_to_handle_at() => [];
            304 open_by_handle_at() => [];
            305 clock_adjtime(clockid: Clock, buf: Ptr) => [time::clock_adjtime];
            306 syncfs(fd: Fd) => [fs::attr::syncfs];
            307 sendmmsg(fd: Fd, msgvec: Ptr, vlen: Uint, flags: MsgFlags) => [net::calls::sendmmsg];
            308 setns(fd: Fd, nstype: Hex) => [process::namespaces::setns];
            309 getcpu(cpu: IntOut, node: IntOut, cache: Ptr) => [sched::getcpu];
            310 process_vm_readv(pid: Pid, local_iov: Iov, liovcnt: Len, remote_iov: Iov, riovcnt: Len, flags: Hex) => [process::peer::process_vm_readv];
            311 process_vm_writev(pid: Pid, local_iov: Iov, liovcnt: Len, remote_iov: Iov, riovcnt: Len, flags: Hex) => [process::peer::process_vm_writev];
            312 kcmp(pid1: Pid, pid2: Pid, kind: Int, idx1: Hex, idx2: Hex) => [process::peer::kcmp];
            313 finit_module() => [];
            314 sched_setattr(pid: Pid, attr: Ptr, flags: Uint) => [sched::attr::sched_setattr];
            315 sched_getattr(pid: Pid, attr: Ptr, size: Uint, flags: Uint) => [sched::attr::sched_getattr];
            316 renameat2(olddirfd: DirFd, oldpath: Path, newdirfd: DirFd, newpath: Path, flags: RenameFlags) => [fs::link::renameat2];
            317 seccomp(operation: Uint, flags: Hex, args: Ptr) => [syscall::filters::seccomp];
            318 getrandom(buf: BufOut, count: Len, flags: RandomFlags) => [fs::random::getrandom];
            319 memfd_create(name: Name, flags: MemfdFlags) => [fs::memfd::memfd_create];
            320 kexec_file_load() => [];
            321 bpf() => [];
            322 execveat(dirfd: DirFd, path: Path, argv: Argv, envp: Envp, flags: AtFlags) => [process::exec::execveat];
            323 userfaultfd() => [];
            324 membarrier(cmd: Membarrier, flags: Hex, cpu_id: Int) => [mm::syscalls::membarrier];
            325 mlock2(addr: Addr, length: Len, flags: Mlock2Flags) => [mm::syscalls::mlock2];
            326 copy_file_range(fd_in: Fd, off_in: OffIn, fd_out: Fd, off_out: OffIn, len: Len, flags: Hex) => [fs::transfer::copy_file_range];
            327 preadv2(fd: Fd, iov: Iov, iovcnt: Len, pos_l: Off, pos_h: Off, flags: RwFlags) => [fs::rw::preadv2];
            328 pwritev2(fd: Fd, iov: Iov, iovcnt: Len, pos_l: Off, pos_h: Off, flags: RwFlags) => [fs::rw::pwritev2];
            329 pkey_mprotect() => [];
            330 pkey_alloc() => [];
            331 pkey_free() => [];
            332 statx(dirfd: DirFd, path: Path, flags: AtFlags, mask: StatxMask, statxbuf: Statx) => [fs::stat::statx];
            333 io_pgetevents() => [];
            334 rseq(rseq: Ptr, rseq_len: Uint, flags: Hex, sig: Hex) => [sched::rseq];
            335 uretprobe() => [];
            424 pidfd_send_signal(pidfd: Fd, sig: Signal, info: Ptr, flags: Uint) => [fs::pidfd::pidfd_send_signal];
            425 io_uring_setup() => [];
            426 io_uring_enter() => [];
            427 io_uring_register() => [];
            428 open_tree() => [];
            429 move_mount() => [];
            430 fsopen() => [];
            431 fsconfig() => [];
            432 fsmount() => [];
            433 fspick() => [];
            434 pidfd_open(pid: Pid, flags: PidfdFlags) => [fs::pidfd::pidfd_open];
            435 clone3(args: CloneArgs, size: Len) => [process::clone::clone3];
            436 close_range(first: Uint, last: Uint, flags: CloseRangeFlags) => [fs::fdops::close_range];
            437 openat2(dirfd: DirFd, path: Path, how: OpenHow, size: Len) => [fs::open::openat2];
            438 pidfd_getfd(pidfd: Fd, targetfd: Fd, flags: Uint) => [fs::pidfd::pidfd_getfd];
            439 faccessat2(dirfd: DirFd, path: Path, mode: AccessMode, flags: AtFlags) => [fs::stat::faccessat2];
            440 process_madvise() => [];
            441 epoll_pwait2(epfd: Fd, events: EpollEvents, maxevents: Int, timeout: Timespec, sigmask: SigSet, sigsetsize: Len) => [fs::epoll::epoll_pwait2];
            442 mount_setattr() => [];
            443 quotactl_fd() => [];
            444 landlock_create_ruleset() => [];
            445 landlock_add_rule() => [];
            446 landlock_restrict_self() => [];
            447 memfd_secret() => [];
            448 process_mrelease() => [];
            449 futex_waitv(waiters: Ptr, nr_futexes: Uint, flags: Uint, timeout: Ptr, clockid: Clock) => [futex::futex2::futex_waitv];
            450 set_mempolicy_home_node() => [];
            451 cachestat() => [];
            452 fchmodat2(dirfd: DirFd, path: Path, mode: Mode, flags: AtFlags) => [fs::attr::fchmodat2];
            453 map_shadow_stack() => [];
            454 futex_wake(uaddr: Addr, mask: Hex, nr: Int, flags: Uint) => [futex::futex2::futex_wake];
            455 futex_wait(uaddr: Addr, val: Hex, mask: Hex, flags: Uint, timeout: Ptr, clockid: Clock) => [futex::futex2::futex_wait];
            456 futex_requeue(waiters: Ptr, flags: Uint, nr_wake: Int, nr_requeue: Int) => [futex::futex2::futex_requeue];
            457 statmount() => [];
            458 listmount() => [];
            459 lsm_get_self_attr() => [];
            460 lsm_set_self_attr() => [];
            461 lsm_list_modules() => [];
            462 mseal() => [];
            463 setxattrat() => [];
            464 getxattrat() => [];
            465 listxattrat() => [];
            466 removexattrat() => [];
            467 open_tree_attr() => [];
            468 file_getattr() => [];
            469 file_setattr() => [];
        }
    };
}

pub use super::arguments::ArgKind;

/// One system call as a trace needs it.
#[derive(Clone, Copy, Debug)]
pub struct Syscall {
    /// Number in `rax`.
    pub nr: u32,
    /// Name as in `syscalls(2)`.
    pub name: &'static str,
    /// Argument names and kinds, in register order.
    pub args: &'static [(&'static str, ArgKind)],
    /// Whether the libOS has a handler.
    pub implemented: bool,
}

/// One more than the highest number in the table.
pub const SYSCALL_LIMIT: usize = 470;

/// The description of system call `nr`, or `None` for a number the table does not know.
#[must_use]
pub fn lookup(nr: u64) -> Option<&'static Syscall> {
    let index = *usize::try_from(nr).ok().and_then(|nr| INDEX.get(nr))?;
    ALL.get(usize::from(index))
}

/// By number: where the call's row is in [`ALL`]; past its end for a number without one.
static INDEX: [u16; SYSCALL_LIMIT] = {
    let mut index = [u16::MAX; SYSCALL_LIMIT];
    let mut row = 0;
    while row < ALL.len() {
        index[ALL[row].nr as usize] = row as u16;
        row += 1;
    }
    index
};

macro_rules! describe {
    ($($nr:literal $name:ident($($arg:ident: $kind:ident),*) => [$($handler:path)?];)*) => {
        /// Every system call of the table, sorted by number.
        pub static ALL: &[Syscall] = &[$(Syscall {
            nr: $nr,
            name: stringify!($name),
            args: &[$((stringify!($arg), ArgKind::$kind)),*],
            implemented: describe!(@implemented $($handler)?),
        }),*];
    };
    (@implemented) => { false };
    (@implemented $handler:path) => { true };
}

// The handler paths are only counted here; the kernel crate resolves them.
syscall_table!(describe);

#[cfg(test)]
mod tests {
    use super::{ALL, SYSCALL_LIMIT, lookup};

    #[test]
    fn sorted_and_bounded() {
        assert!(ALL.windows(2).all(|pair| pair[0].nr < pair[1].nr));
        assert_eq!(
            ALL.last().map(|row| row.nr as usize + 1),
            Some(SYSCALL_LIMIT)
        );
    }

    #[test]
    fn lookup_by_number() {
        assert_eq!(lookup(257).map(|row| row.name), Some("openat"));
        assert!(lookup(u64::MAX).is_none());
        for nr in 0..SYSCALL_LIMIT as u64 + 10 {
            let row = ALL.iter().find(|row| u64::from(row.nr) == nr);
            assert_eq!(lookup(nr).map(|row| row.name), row.map(|row| row.name));
        }
    }
}
