//! Random operations against an array of pages.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::mm::testing;
use crate::mm::{Flags, Remap};

const BASE: u64 = 0x4000_0000;
const PAGES: u64 = 5 * 512;

#[derive(Clone, Debug)]
struct Page {
    prot: Prot,
    shared: bool,
    value: Rc<Cell<u64>>,
}

type Model = Vec<Option<Page>>;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// A range of pages; often whole 2 MiB, often small.
    fn range(&mut self) -> core::ops::Range<u64> {
        match self.below(3) {
            0 => {
                let start = self.below(5) * 512;
                start..(start + (1 + self.below(2)) * 512).min(PAGES)
            }
            1 => {
                let start = self.below(PAGES);
                start..(start + 1 + self.below(40)).min(PAGES)
            }
            _ => {
                let start = self.below(PAGES);
                start..(start + 1 + self.below(900)).min(PAGES)
            }
        }
    }

    fn prot(&mut self) -> Prot {
        match self.below(5) {
            0 => Prot::READ,
            1 => Prot::empty(),
            _ => RW,
        }
    }
}

fn address(page: u64) -> u64 {
    BASE + page * PAGE
}

fn check(space: &AddressSpace, model: &Model, page: u64, random: &mut Random) {
    let at = address(page);
    let wrong = |what: &str| panic!("page {page}: {what}, model {:?}", model[page as usize]);
    match &model[page as usize] {
        None => {
            if load(space, at).is_ok() || store(space, at, 1).is_ok() {
                wrong("unmapped but accessible");
            }
        }
        Some(state) if state.prot.is_empty() => {
            if load(space, at).is_ok() || store(space, at, 1).is_ok() {
                wrong("accessible without rights");
            }
        }
        Some(state) => {
            if load(space, at) != Ok(state.value.get()) {
                wrong(&format!("read {:?}", load(space, at)));
            }
            if state.prot.contains(Prot::WRITE) {
                let value = random.below(u64::MAX);
                store(space, at, value).unwrap();
                state.value.set(value);
            } else if store(space, at, 1).is_ok() {
                wrong("written without right");
            }
        }
    }
}

fn fork(model: &Model) -> Model {
    model
        .iter()
        .map(|page| {
            page.clone().map(|page| Page {
                value: if page.shared {
                    page.value
                } else {
                    Rc::new(Cell::new(page.value.get()))
                },
                ..page
            })
        })
        .collect()
}

fn map(space: &AddressSpace, model: &mut Model, file: &Arc<TestFile>, random: &mut Random) {
    let (range, prot) = (random.range(), random.prot());
    let len = (range.end - range.start) * PAGE;
    let kind = random.below(4);
    let mapping = match kind {
        0 => {
            let mut mapping = Mapping::anonymous(prot);
            mapping.flags = Flags::SHARED;
            mapping.backing = crate::mm::shared_anonymous(space, len).unwrap();
            mapping
        }
        1 => file_mapping(file, 0, prot),
        _ => Mapping::anonymous(prot),
    };
    map_at(space, address(range.start), len, mapping);
    for page in range.clone() {
        model[page as usize] = Some(Page {
            prot,
            shared: kind == 0,
            value: Rc::new(Cell::new(if kind == 1 {
                1000 + page - range.start
            } else {
                0
            })),
        });
    }
}

fn protect(space: &AddressSpace, model: &mut Model, random: &mut Random) {
    let (range, prot) = (random.range(), random.prot());
    let len = (range.end - range.start) * PAGE;
    let result = space.protect(address(range.start), len, prot, false, &Limits::DEFAULT);
    for page in range {
        let Some(state) = &mut model[page as usize] else {
            assert_eq!(result, Err(Errno::ENOMEM));
            return;
        };
        state.prot = prot;
    }
    assert_eq!(result, Ok(()));
}

fn forget(space: &AddressSpace, model: &mut Model, random: &mut Random) {
    let range = random.range();
    let len = (range.end - range.start) * PAGE;
    // Only for ranges of private zeros is the result known without knowing what each page shows.
    let mut flags = husk_abi::linux::general::MADV_FREE;
    let before = model[range.start as usize..range.end as usize].to_vec();
    if before.iter().flatten().any(|page| page.shared) {
        flags = husk_abi::linux::general::MADV_WILLNEED;
    }
    let result = space.advise(address(range.start), len, flags);
    if flags == husk_abi::linux::general::MADV_WILLNEED || result == Err(Errno::EINVAL) {
        // A file was in the way: what came before it is forgotten. Read back what there is now.
        for page in range {
            if let Some(state) = &mut model[page as usize]
                && !state.prot.is_empty()
            {
                let now = load(space, address(page)).unwrap();
                assert!(now == state.value.get() || now == 0);
                state.value.set(now);
            } else if let Some(state) = &mut model[page as usize] {
                let at = address(page);
                space
                    .protect(at, PAGE, Prot::READ, false, &Limits::DEFAULT)
                    .unwrap();
                state.value.set(load(space, at).unwrap());
                state.prot = Prot::READ;
            }
        }
        return;
    }
    let holes = before.iter().any(Option::is_none);
    assert_eq!(result, if holes { Err(Errno::ENOMEM) } else { Ok(()) });
    for page in range {
        if let Some(state) = &mut model[page as usize] {
            state.value.set(0);
        }
    }
}

fn remap(space: &AddressSpace, model: &mut Model, random: &mut Random) {
    let from = random.below(PAGES);
    let len = 1 + random.below(600);
    let to = if random.below(2) == 0 {
        (from + 512 * random.below(4)) % PAGES
    } else {
        random.below(PAGES)
    };
    if from + len > PAGES || to + len > PAGES {
        return;
    }
    let what = Remap {
        old: address(from),
        old_len: len * PAGE,
        new_len: len * PAGE,
        may_move: true,
        fixed: Some(address(to)),
        keep_old: false,
    };
    let overlap = from < to + len && to < from + len;
    match space.remap(&what, &Limits::DEFAULT) {
        Ok(at) => {
            assert_eq!(at, address(to));
            assert!(!overlap);
            for page in 0..len {
                model[(to + page) as usize] = model[(from + page) as usize].take();
            }
        }
        Err(Errno::EINVAL) => assert!(overlap),
        // More than one area.
        Err(error) => assert_eq!(error, Errno::EFAULT),
    }
}

fn run(seed: u64, steps: u64) {
    let frames = testing::frames(96);
    let file = Arc::new(TestFile::numbered(frames, 1024));
    let before = used(frames);
    let mut random = Random(seed);
    let mut spaces = vec![(shelf::laid_out(frames), vec![None; PAGES as usize] as Model)];
    for _ in 0..steps {
        let count = spaces.len();
        let which = random.below(count as u64) as usize;
        let (space, model) = &mut spaces[which];
        match random.below(12) {
            0..=2 => map(space, model, &file, &mut random),
            3 => {
                let range = random.range();
                let len = (range.end - range.start) * PAGE;
                space.unmap(address(range.start), len).unwrap();
                model[range.start as usize..range.end as usize].fill(None);
            }
            4..=5 => protect(space, model, &mut random),
            6 => forget(space, model, &mut random),
            7 => remap(space, model, &mut random),
            8 if count < 4 => {
                let child = (space.fork(0).unwrap(), fork(model));
                spaces.push(child);
            }
            9 if count > 1 => drop(spaces.swap_remove(which)),
            _ => {
                for _ in 0..60 {
                    let page = random.below(PAGES);
                    check(space, model, page, &mut random);
                }
            }
        }
    }
    for (space, model) in &spaces {
        (0..PAGES).for_each(|page| check(space, model, page, &mut random));
        let mapped = model.iter().flatten().count() as u64 * PAGE;
        assert_eq!(space.totals().size, mapped);
        let lines = space.maps(true);
        assert_eq!(lines.iter().map(|l| l.end - l.start).sum::<u64>(), mapped);
        let resident: u64 = lines.iter().map(|line| line.resident_pages * PAGE).sum();
        assert_eq!(resident, space.totals().resident);
    }
    drop(spaces);
    assert_eq!(used(frames), before, "frames leaked");
}

#[test]
fn random_operations() {
    for seed in 1..=12 {
        run(seed * 0x9e37_79b9, 250);
    }
}
