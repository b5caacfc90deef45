//! The first script husk must run as runc does.

use husk_tests::differential::Failures;
use husk_tests::scripts::FIRST_LIGHT;
use husk_tests::{End, Husk, Image, Runc, differential_to};

#[test]
fn first_light_equals_runc() {
    let image = Image::busybox().unwrap();
    let job = FIRST_LIGHT.job(&image);
    let mut failures = Failures::default();
    failures.note(
        FIRST_LIGHT.name,
        differential_to(End::Status(7), &Runc, &Husk::find().unwrap(), &job),
    );
    failures.check(1);
}
