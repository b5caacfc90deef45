//! C programs that check themselves and print what they found: husk must do what runc does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use husk_tests::oci::{Bundle, both};
use husk_tests::{End, Husk, Job, Runc, Runner, differential_to, programs};
use serde_json::json;

/// Runs the program under both. A program that fails under runc is wrong itself.
fn same(argv: &[&str], seconds: u64) {
    let job = Job::new(programs::image(), argv.iter().copied()).limit(Duration::from_secs(seconds));
    same_job(&job);
}

fn same_job(job: &Job) {
    let husk = Husk::find().unwrap();
    let report = differential_to(End::Status(0), &Runc, &husk, job).unwrap();
    assert!(
        report.is_none(),
        "{:?}:\n{}",
        job.argv,
        report.unwrap_or_default()
    );
}

#[test]
fn a_million_signals_to_a_thread_in_a_syscall_loop() {
    same(&["/t/signals", "1000000"], 300);
}

#[test]
fn a_hundred_threads_at_one_syscall_site() {
    same(&["/t/one_site", "20000"], 120);
}

#[test]
fn fork_in_the_middle_of_signals_and_syscalls() {
    same(&["/t/forkmix", "200"], 240);
}

#[test]
fn a_busy_loop_does_not_keep_others_from_running() {
    same(&["/t/preempt"], 60);
}

#[test]
fn cpu_time_is_user_and_system() {
    same(&["/t/cpu_times"], 60);
}

#[test]
fn memory_comes_and_goes() {
    same(&["/t/memory_waves"], 120);
}

#[test]
fn mappings_and_their_faults() {
    same(&["/t/mem"], 60);
}

#[test]
fn mappings_of_files() {
    same(&["/t/mm_file"], 60);
}

#[test]
fn corner_cases_of_address_spaces() {
    same(&["/t/mm_map"], 60);
}

#[test]
fn addresses_are_random() {
    same(&["/t/mm_aslr"], 60);
}

#[test]
fn memory_that_runs_out() {
    let job = Job::new(programs::image(), ["/t/mm_oom"]).memory_mib(64);
    same_job(&job.limit(Duration::from_secs(120)));
}

#[test]
fn forks_and_copies_on_write() {
    for seed in ["1", "2", "3"] {
        same(&["/t/mm_storm", seed], 240);
    }
}

#[test]
fn privileged_and_wild_instructions() {
    same(&["/t/privileged"], 60);
}

#[test]
fn signal_semantics() {
    same(&["/t/sig"], 120);
}

#[test]
fn threads_and_futexes() {
    same(&["/t/threads"], 120);
}

#[test]
fn processes_and_descriptors() {
    same(&["/t/procs"], 60);
}

#[test]
fn clocks_and_sleeps() {
    same(&["/t/clocks"], 60);
}

#[test]
fn timers_of_every_kind() {
    same(&["/t/timers"], 120);
}

#[test]
fn futexes_requeue_and_outlive_their_owners() {
    same(&["/t/futexes"], 120);
}

#[test]
fn single_steps_over_translated_calls() {
    same(&["/t/tr_step"], 60);
}

#[test]
fn signals_inside_translated_calls() {
    same(&["/t/tr_signals"], 120);
}

#[test]
fn processes_that_start_while_their_program_is_patched() {
    same(&["/t/tr_storm"], 120);
}

#[test]
fn requests_and_stops_of_tracers() {
    same(&["/t/ptrace"], 60);
}

#[test]
fn events_and_lives_of_tracees() {
    same(&["/t/ptrace_events"], 120);
}

#[test]
fn unwinding_through_calls() {
    same(&["/t/unwind"], 60);
}

#[test]
fn code_that_changes() {
    same(&["/t/tr_jit"], 60);
}

#[test]
fn descriptors_of_signals_and_processes() {
    same(&["/t/peers"], 60);
}

#[test]
fn restartable_sequences_count_exactly() {
    same(&["/t/rseq", "200000"], 120);
}

#[test]
fn vector_registers() {
    same(&["/t/fpu", "2000"], 120);
}

#[test]
fn unix_sockets() {
    same(&["/t/net_unix"], 120);
}

#[test]
fn descriptors_and_credentials_in_messages() {
    same(&["/t/net_rights"], 120);
}

#[test]
fn tcp_over_the_loopback() {
    same(&["/t/net_tcp"], 120);
}

#[test]
fn udp_interfaces_and_netlink() {
    same(&["/t/net_udp"], 120);
}

#[test]
fn a_crash_of_the_first_process_is_its_status() {
    for case in ["read_null", "ud2", "divide_by_zero", "hlt"] {
        // The parent of the crash is a shell that hands its status on.
        let script = format!("/t/privileged {case} >/dev/null; exec /t/crash {case}");
        let job = Job::shell(programs::image(), &script);
        let expected = Runc.run(&job).unwrap();
        assert!(
            matches!(expected.end, End::Status(129..=191)),
            "{case} under runc: {:?}",
            expected.end
        );
        let actual = Husk::find().unwrap().run(&job).unwrap();
        assert_eq!(actual.end, expected.end, "{case}: {}", actual.stderr_text());
    }
}

#[test]
fn the_wall_clock_is_the_hosts() {
    let seconds = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
    };
    let job = Job::new(programs::image(), ["/t/clocks", "wall"]);
    let before = seconds();
    let run = Husk::find().unwrap().run(&job).unwrap();
    let after = seconds();
    let printed = run.stdout_text();
    let inside: u64 = printed
        .lines()
        .last()
        .and_then(|line| line.parse().ok())
        .unwrap_or_else(|| panic!("{run:?}"));
    assert!(
        (before - 2..=after + 2).contains(&inside),
        "{inside} is not within {before}..{after}"
    );
}

#[test]
fn futexes_in_numbers_and_limits_of_cpu_time() {
    same(&["/t/futex2"], 120);
}

#[test]
fn the_machine_and_the_session() {
    same(&["/t/machine"], 60);
}

#[test]
fn signals_about_input_and_output() {
    same(&["/t/sigio"], 60);
}

#[test]
fn pseudo_terminals() {
    same(&["/t/pty"], 120);
}

#[test]
fn terminals_of_sessions_and_groups() {
    same(&["/t/pty_jobs"], 120);
}

#[test]
fn file_events() {
    same(&["/t/inotify"], 60);
}

#[test]
fn libunwind_walks_through_a_signal_and_a_call() {
    same(&["/t/libunwind"], 60);
}

#[test]
fn one_file_in_every_way_at_random() {
    for file in ["/f", "/dev/shm/f"] {
        for seed in ["1", "2"] {
            same(&["/t/fsx", file, seed, "2000"], 120);
        }
    }
}

#[test]
fn names_in_every_way_at_random() {
    for directory in ["/names", "/dev/shm/names"] {
        for seed in ["1", "2", "3"] {
            same(&["/t/names", directory, seed, "3000"], 120);
        }
    }
}

#[test]
fn system_v_objects_and_message_queues() {
    same(&["/t/sysv"], 60);
}

#[test]
fn filters_of_system_calls() {
    same(&["/t/seccomp"], 60);
}

/// What needs `CAP_SYS_ADMIN`.
#[test]
fn namespaces_of_names_and_of_ipc_objects() {
    let text = both(|runtime| {
        let mut bundle = Bundle::new(runtime, programs::image(), "")?;
        bundle.edit(|spec| {
            spec["process"]["args"] = json!(["/t/sysv", "namespaces"]);
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
            }
            spec["process"]["capabilities"]["ambient"] = json!([]);
            spec["hostname"] = json!("outer");
        })?;
        let done = bundle.run()?;
        Ok(format!(
            "{}{}{:?}",
            done.stdout_text(),
            done.stderr_text(),
            done.end
        ))
    })
    .unwrap();
    assert!(text.contains("inner") && text.contains("outer"), "{text}");
}
