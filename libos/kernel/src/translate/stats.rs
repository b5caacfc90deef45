//! Counters: why system calls trap, and where.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use husk_abi::boundary::stats::{SITE_BYTES, SiteReport, TranslationReport, TrapReason};
use husk_hal::phys::Frame;

use super::symbols;
use crate::mm::Mappable;
use crate::sync::SpinLock;

/// Sites that are counted one by one; the calls of further ones are only summed.
const MAX_SITES: usize = 2048;
/// Sites in a report.
const MAX_REPORTED: usize = 256;

/// What identifies a site: the file (`None` for other memory), and the offset or address of the `syscall`.
pub type SiteKey = (Option<(u64, u64)>, u64);

/// What is looked up once, when a site is first counted.
#[derive(Clone, Debug, Default)]
pub struct SiteText {
    /// Path of the file, or of the running program if the site is in none.
    pub path: Vec<u8>,
    /// The file.
    pub file: Option<Arc<dyn Mappable>>,
    /// Up to [`SITE_BYTES`] bytes before the `syscall`.
    pub before: Vec<u8>,
    /// The `syscall` and what follows.
    pub after: Vec<u8>,
}

#[derive(Debug)]
struct Site {
    traps: u64,
    nr: u64,
    reason: TrapReason,
    text: SiteText,
}

/// All counters.
#[derive(Debug)]
pub struct Stats {
    traps: [AtomicU64; TrapReason::ALL.len()],
    translated: AtomicU64,
    unlisted: AtomicU64,
    /// `None` unless sites are counted.
    sites: Option<SpinLock<HashMap<SiteKey, Site>>>,
}

impl Stats {
    /// All zero.
    #[must_use]
    pub fn new(count_sites: bool) -> Self {
        Self {
            traps: [const { AtomicU64::new(0) }; TrapReason::ALL.len()],
            translated: AtomicU64::new(0),
            unlisted: AtomicU64::new(0),
            sites: count_sites.then(|| SpinLock::new(HashMap::new())),
        }
    }

    /// Whether sites are counted one by one.
    #[must_use]
    pub fn counts_sites(&self) -> bool {
        self.sites.is_some()
    }

    /// Sites translated so far.
    #[must_use]
    pub fn translated(&self) -> u64 {
        self.translated.load(Ordering::Relaxed)
    }

    /// Traps for a reason so far.
    #[must_use]
    pub fn traps(&self, reason: TrapReason) -> u64 {
        self.traps[reason as usize].load(Ordering::Relaxed)
    }

    /// Counts a trap.
    pub fn count(&self, reason: TrapReason) {
        self.traps[reason as usize].fetch_add(1, Ordering::Relaxed);
        if reason == TrapReason::FirstUse {
            self.count_translated();
        }
    }

    /// Counts a site that was patched.
    pub fn count_translated(&self) {
        self.translated.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a trap at a site; `text` is only called for a new one, and may touch user memory.
    pub fn count_site(
        &self,
        key: SiteKey,
        nr: u64,
        reason: TrapReason,
        text: impl FnOnce() -> SiteText,
    ) {
        let Some(sites) = &self.sites else { return };
        // Not under the lock: user memory.
        let mut text = if sites.lock().contains_key(&key) {
            None
        } else {
            Some(text())
        };
        let mut sites = sites.lock();
        if sites.len() >= MAX_SITES && !sites.contains_key(&key) {
            self.unlisted.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let site = sites.entry(key).or_insert_with(|| Site {
            traps: 0,
            nr,
            reason,
            text: text.take().unwrap_or_default(),
        });
        site.traps += 1;
        site.nr = nr;
        site.reason = reason;
    }

    /// Everything so far. `put` gives back a frame that [`Mappable::page`] counted.
    #[must_use]
    pub fn report(&self, put: &dyn Fn(Frame)) -> TranslationReport {
        let mut sites = self.site_reports(put);
        let unlisted: u64 = sites.iter().skip(MAX_REPORTED).map(|site| site.traps).sum();
        sites.truncate(MAX_REPORTED);
        TranslationReport {
            calls: 0,
            calls_trapped: 0,
            sites_translated: self.translated(),
            traps: TrapReason::ALL
                .into_iter()
                .map(|reason| (reason, self.traps(reason)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            sites,
            traps_unlisted: self.unlisted.load(Ordering::Relaxed) + unlisted,
        }
    }

    /// All counted sites, most traps first.
    fn site_reports(&self, put: &dyn Fn(Frame)) -> Vec<SiteReport> {
        let Some(sites) = &self.sites else {
            return Vec::new();
        };
        let sites = core::mem::take(&mut *sites.lock());
        let names = names(&sites, put);
        let mut reports: Vec<_> = sites
            .into_iter()
            .map(|((file, offset), site)| SiteReport {
                file,
                path: site.text.path,
                symbol: names.get(&(file, offset)).cloned(),
                offset,
                nr: site.nr,
                traps: site.traps,
                reason: site.reason,
                before: cut(&site.text.before),
                after: cut(&site.text.after),
            })
            .collect();
        reports.sort_by(|a, b| {
            b.traps
                .cmp(&a.traps)
                .then((a.file, a.offset).cmp(&(b.file, b.offset)))
        });
        reports
    }
}

/// The functions the sites are in, as far as their files tell.
fn names(sites: &HashMap<SiteKey, Site>, put: &dyn Fn(Frame)) -> HashMap<SiteKey, (Vec<u8>, u64)> {
    let mut files: HashMap<_, Vec<_>> = HashMap::new();
    for ((file, offset), site) in sites {
        if let Some((identity, mappable)) = file.zip(site.text.file.as_ref()) {
            let of_file = files.entry(identity).or_default();
            of_file.push((*offset, mappable));
        }
    }
    let mut names = HashMap::new();
    for (identity, sites) in files {
        let offsets: Vec<_> = sites.iter().map(|(offset, _)| *offset).collect();
        let Some((_, mappable)) = sites.first() else {
            continue;
        };
        let found = symbols::find(&***mappable, put, &offsets);
        for (offset, name) in offsets.into_iter().zip(found) {
            if let Some(name) = name {
                names.insert((Some(identity), offset), name);
            }
        }
    }
    names
}

fn cut(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len().min(SITE_BYTES)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> SiteText {
        SiteText {
            path: b"/bin/sh".to_vec(),
            file: None,
            before: alloc::vec![0x90; SITE_BYTES],
            after: alloc::vec![0x0f, 0x05],
        }
    }

    #[test]
    fn sites_are_sorted_by_their_traps() {
        let stats = Stats::new(true);
        for (offset, traps) in [(1, 3), (2, 9), (3, 1)] {
            for _ in 0..traps {
                stats.count(TrapReason::Enterable);
                stats.count_site((Some((1, 1)), offset), 39, TrapReason::Enterable, text);
            }
        }
        stats.count(TrapReason::FirstUse);
        let report = stats.report(&|_| {});
        let order: Vec<_> = report.sites.iter().map(|site| site.offset).collect();
        assert_eq!(order, [2, 1, 3]);
        assert_eq!(report.sites[0].traps, 9);
        assert_eq!(report.sites[0].path, b"/bin/sh");
        assert_eq!(report.sites_translated, 1);
        assert_eq!(
            report.traps,
            [(TrapReason::FirstUse, 1), (TrapReason::Enterable, 13)]
        );
    }

    #[test]
    fn the_table_is_bounded_and_says_what_it_left_out() {
        let stats = Stats::new(true);
        for address in 0..MAX_SITES as u64 + 10 {
            stats.count_site((None, address), 1, TrapReason::NotFileText, text);
        }
        let report = stats.report(&|_| {});
        assert_eq!(report.sites.len(), MAX_REPORTED);
        let listed: u64 = report.sites.iter().map(|site| site.traps).sum();
        assert_eq!(listed + report.traps_unlisted, MAX_SITES as u64 + 10);
    }

    #[test]
    fn without_count_sites_only_sums_are_kept() {
        let stats = Stats::new(false);
        stats.count(TrapReason::NoPattern);
        stats.count_site((None, 1), 1, TrapReason::NoPattern, || panic!("not needed"));
        assert!(stats.report(&|_| {}).sites.is_empty());
        assert_eq!(stats.traps(TrapReason::NoPattern), 1);
    }
}
