//! What a guest may ask of the socket service: any requests, and any words in the memory that both sides share. Answers are those
//! of the queue, and nobody panics. It opens real sockets: run it in a network namespace of its own (`unshare -rn`).
#![no_main]

use husk::gate::Alone;
use libfuzzer_sys::fuzz_target;

/// Bytes of a request's header, and where its operation stands.
const HEADER: usize = 40;
const OPERATION: usize = 4;
/// The operations' numbers, from the first, and how many there are.
const FIRST: u8 = 64;
const COUNT: u8 = 17;

fn check_network() {
    let interfaces = std::fs::read_to_string("/proc/net/dev").expect("it can be read");
    let others = interfaces
        .lines()
        .skip(2)
        .filter(|line| !line.trim().starts_with("lo:"));
    assert_eq!(
        others.count(),
        0,
        "run it in a network namespace of its own: unshare -rn"
    );
}

fuzz_target!(init: check_network(), |bytes: &[u8]| {
    let alone = Alone::new().expect("the host gives memory");
    let mut rest = bytes;
    while let [kind, len, cut, after @ ..] = rest {
        let (body, next) = after.split_at(after.len().min(usize::from(*len)));
        rest = next;
        if *kind >= 0xc0 {
            let (at, words) = body.split_at(body.len().min(3));
            let offset = at.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            alone.write(offset, words);
            continue;
        }
        let mut request = vec![0; HEADER];
        let total = (HEADER + body.len()) as u32;
        request[..OPERATION].copy_from_slice(&total.to_le_bytes());
        request[OPERATION] = FIRST + kind % COUNT;
        request.extend_from_slice(body);
        let answer = alone.serve(&request, usize::from(*cut));
        assert!(answer == 0 || answer >= 16, "an answer has a header");
    }
});
