//! What programs look for under `/sys` of a container without devices (`sysfs(5)`).

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::pseudo::{Fixed, Maker, Node, named};
use crate::Kernel;

const SYSFS_MAGIC: u32 = 0x6265_6572;

/// A set of CPUs as a list, `0-3`, and as a mask, `f`.
struct CpuSet {
    list: String,
    mask: String,
}

impl CpuSet {
    fn one(cpu: usize) -> Self {
        Self::of(cpu, cpu)
    }

    fn of(first: usize, last: usize) -> Self {
        let list = if first == last {
            format!("{first}\n")
        } else {
            format!("{first}-{last}\n")
        };
        // Words of 32 bits, the highest first, as many as it takes.
        let word = |number: usize| {
            let cpus = (first..=last).filter(|cpu| cpu / 32 == number);
            cpus.fold(0u32, |word, cpu| word | 1 << (cpu % 32))
        };
        let mut mask = format!("{:x}", word(last / 32));
        for number in (0..last / 32).rev() {
            mask += &format!(",{:08x}", word(number));
        }
        mask.push('\n');
        Self { list, mask }
    }
}

/// `/sys/devices/system/cpu/cpuN`: each CPU is a core of its own, all are in one package. Caches are left out: to ask the CPU for
/// them takes longer than a short program.
fn cpu(maker: &Maker, number: usize, all: &CpuSet) -> Arc<Node> {
    let text = |text: &str| maker.text(text);
    let own = CpuSet::one(number);
    let core = || text(&own.mask);
    let core_list = || text(&own.list);
    let package = || text(&all.mask);
    let package_list = || text(&all.list);
    let topology = maker.directory(vec![
        ("core_cpus", core()),
        ("core_cpus_list", core_list()),
        ("core_id", text(&format!("{number}\n"))),
        ("core_siblings", package()),
        ("core_siblings_list", package_list()),
        ("die_cpus", package()),
        ("die_cpus_list", package_list()),
        ("die_id", text("0\n")),
        ("package_cpus", package()),
        ("package_cpus_list", package_list()),
        ("physical_package_id", text("0\n")),
        ("thread_siblings", core()),
        ("thread_siblings_list", core_list()),
    ]);
    maker.directory(vec![("topology", topology)])
}

/// A new sysfs.
pub fn new(kernel: &'static Kernel) -> Arc<Fixed> {
    let maker = Maker::new(kernel);
    let empty = || maker.directory(Vec::new());
    let count = kernel.sched.cpu_count().max(1);
    let all = CpuSet::of(0, count - 1);
    let mut cpus = named(vec![
        ("kernel_max", maker.text("8191\n")),
        ("offline", maker.text("\n")),
        ("online", maker.text(&all.list)),
        ("possible", maker.text(&all.list)),
        ("present", maker.text(&all.list)),
    ]);
    let each = (0..count).map(|number| (format!("cpu{number}").into(), cpu(&maker, number, &all)));
    cpus.extend(each);
    let cpus = maker.machine_directory(cpus);
    let first_node = maker.directory(vec![
        ("cpulist", maker.text(&all.list)),
        ("cpumap", maker.text(&all.mask)),
        ("distance", maker.text("10\n")),
    ]);
    let first = || maker.text("0\n");
    let nodes = maker.directory(vec![
        ("has_cpu", first()),
        ("has_memory", first()),
        ("has_normal_memory", first()),
        ("node0", first_node),
        ("online", first()),
        ("possible", first()),
    ]);
    let system = maker.directory(vec![("cpu", cpus), ("node", nodes)]);
    let devices = maker.directory(vec![("system", system), ("virtual", empty())]);
    let huge = maker.directory(vec![
        ("enabled", maker.text("always [madvise] never\n")),
        ("hpage_pmd_size", maker.text("2097152\n")),
    ]);
    let mm = maker.directory(vec![("transparent_hugepage", huge)]);
    let kernel_directory = maker.directory(vec![("mm", mm), ("security", empty())]);
    let fs = maker.directory(vec![("cgroup", empty())]);
    let class = maker.directory(vec![("net", empty())]);
    let root = maker.closed_directory(vec![
        ("block", empty()),
        ("bus", empty()),
        ("class", class),
        ("dev", empty()),
        ("devices", devices),
        ("firmware", empty()),
        ("fs", fs),
        ("kernel", kernel_directory),
        ("module", empty()),
        ("power", empty()),
    ]);
    maker.finish("sysfs", SYSFS_MAGIC, String::new(), root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_cpus() {
        let text = |first, last| {
            let set = CpuSet::of(first, last);
            (set.list, set.mask)
        };
        assert_eq!(text(0, 0), ("0\n".into(), "1\n".into()));
        assert_eq!(text(0, 3), ("0-3\n".into(), "f\n".into()));
        assert_eq!(text(33, 33), ("33\n".into(), "2,00000000\n".into()));
        assert_eq!(text(0, 32), ("0-32\n".into(), "1,ffffffff\n".into()));
    }
}
