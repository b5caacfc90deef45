//! Types that may be copied to and from user memory byte by byte.

use linux_raw_sys::{general, net, system};

/// A type every bit pattern of which is a valid value and that holds no pointers Rust would follow.
///
/// # Safety
/// Implement it only for integers, arrays and `#[repr(C)]` structs of such types.
#[expect(unsafe_code, reason = "the one list of types that user copies accept")]
pub unsafe trait Pod: Copy + 'static {}

macro_rules! pod {
    ($($ty:ty),* $(,)?) => {
        $(
            // SAFETY: integers, arrays of them and C structs made of them only; raw pointers inside
            // are addresses of the program, never dereferenced by Rust.
            #[expect(unsafe_code, reason = "see the trait")]
            unsafe impl Pod for $ty {}
        )*
    };
}

// SAFETY: an array of values without invalid bit patterns has none either.
#[expect(unsafe_code, reason = "see the trait")]
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

pod!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, isize);
pod!(
    general::stat,
    general::statx,
    general::statfs,
    general::__kernel_timespec,
    general::timespec,
    general::timeval,
    general::__kernel_old_timeval,
    general::__kernel_old_itimerval,
    general::sigevent,
    super::timex::Timex,
    general::timezone,
    general::itimerval,
    general::itimerspec,
    general::__kernel_itimerspec,
    general::rusage,
    general::rlimit,
    general::rlimit64,
    general::iovec,
    general::pollfd,
    general::epoll_event,
    general::siginfo_t,
    general::kernel_sigaction,
    general::clone_args,
    general::robust_list_head,
    general::flock,
    general::winsize,
    general::termios,
    general::termios2,
    general::termio,
    general::open_how,
    system::new_utsname,
    net::sockaddr_un,
    net::msghdr,
    net::mmsghdr,
    net::cmsghdr,
    net::ucred,
    net::linger,
);
