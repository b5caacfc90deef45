use super::*;
use husk_abi::linux::syscalls::lookup;

fn names(expression: &str) -> Vec<&'static str> {
    let rule = rule(expression).unwrap();
    let rows = ALL.iter().filter(|row| rule.has(u64::from(row.nr)));
    rows.map(|row| row.name).collect()
}

fn nr(name: &str) -> u64 {
    u64::from(ALL.iter().find(|row| row.name == name).unwrap().nr)
}

#[test]
fn calls_by_name_number_and_class() {
    assert_eq!(names("read"), ["read"]);
    assert_eq!(names("call=openat,read,1"), ["read", "write", "openat"]);
    assert_eq!(names("syscall_39"), ["getpid"]);
    assert_eq!(names("all").len(), ALL.len());
    assert_eq!(names("pid=1").len(), ALL.len(), "no word on calls: all");
    let file = names("%file");
    for name in [
        "openat", "execve", "unlink", "mount", "swapon", "symlink", "statx",
    ] {
        assert!(file.contains(&name), "{name}");
    }
    for name in ["read", "fstat", "memfd_create", "fgetxattr"] {
        assert!(!file.contains(&name), "{name}");
    }
    let desc = names("%desc");
    assert!(desc.contains(&"read") && desc.contains(&"openat") && desc.contains(&"poll"));
    assert!(!desc.contains(&"stat") && !desc.contains(&"getpid"));
    assert_eq!(names("%network"), names("%net"));
    assert_eq!(names("%process,%signal").len(), 17 + 16 - 6);
}

#[test]
fn a_list_can_be_negated() {
    let others = rule("!read,%file").unwrap();
    assert!(!others.has(0) && !others.has(nr("openat")));
    assert!(others.has(nr("write")) && others.has(1 << 30));
    assert_eq!(rule("!all").unwrap().calls, FilterRule::NONE.calls);
    assert!(lookup(100_000).is_none() && rule("100000").unwrap().has(100_000));
}

#[test]
fn conditions_add_up() {
    let rule = rule("  %file\tpid=7 tree=1,9  path=/etc/,//a/b result=ENOENT,success ").unwrap();
    assert!(rule.has(nr("openat")) && !rule.has(nr("read")));
    assert_eq!(
        rule.processes[..4],
        [7, 1 | PROCESS_TREE, 9 | PROCESS_TREE, 0]
    );
    assert_eq!(rule.paths[..10], *b"/etc\0/a/b\0");
    assert_eq!(rule.results, RESULT_ERRNOS | RESULT_SUCCESS);
    assert!(rule.wants_result(Some(-2)) && rule.wants_result(Some(0)));
    assert!(!rule.wants_result(Some(-13)));
}

#[test]
fn paths_may_hold_anything() {
    let rule = rule(r"path=/a\ b\,c\\d,/").unwrap();
    assert_eq!(rule.paths[..11], *b"/a b,c\\d\0/\0");
}

#[test]
fn several_expressions_are_several_rules() {
    let filter = super::filter(&["read", "path=/etc"], 5).unwrap();
    assert_eq!((filter.rules().len(), filter.flags), (2, 5));
    let everything = super::filter::<&str>(&[], 0).unwrap();
    assert_eq!(everything.rules(), [FilterRule::ALL]);
    assert_eq!(super::filter(&["read"; 9], 0), Err(Error::TooManyRules));
}

#[test]
fn errors_name_the_word() {
    let text = |expression: &str| rule(expression).unwrap_err().to_string();
    for (expression, word) in [
        ("opne", "\"opne\""),
        ("call=read,opne", "\"opne\""),
        ("%files", "\"%files\""),
        ("user=0", "\"user\""),
        ("pid=0", "\"0\""),
        ("pid=me", "\"me\""),
        ("tree=99999999", "\"99999999\""),
        ("path=etc", "\"etc\""),
        ("path=/etc/../x", "\"/etc/../x\""),
        ("result=ENOPE", "\"ENOPE\""),
        ("read call=write", "call="),
        ("result=", "result="),
        ("call=!", "call="),
        (" ", "\" \""),
    ] {
        assert!(text(expression).contains(word), "{}", text(expression));
    }
    assert_eq!(rule("pid=1,2,3,4,5,6,7,8,9"), Err(Error::TooManyProcesses));
    let long = format!("path=/{}", "x".repeat(PATHS_BYTES - 1));
    assert_eq!(rule(&long), Err(Error::PathsTooLong));
    assert!(rule(&long[..long.len() - 1]).is_ok());
}
