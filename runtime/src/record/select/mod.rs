//! What to record: expressions of `--trace-filter` to the filter in the guest.
//!
//! An expression is conditions with blanks between them; a call must meet all of them. Of several expressions a call
//! must meet one. A condition is `KEY=WORD,WORD...`, or the words alone for `call=`:
//!
//! | condition | met by |
//! | --- | --- |
//! | `call=` names, numbers, `%class`, `all` | those calls; with `!` before the first word all others |
//! | `pid=` ids | calls of those processes |
//! | `tree=` ids | calls of those processes and their descendants |
//! | `path=` absolute paths | calls that name such a file, or one below it, by path or descriptor |
//! | `result=` `success`, `failure`, names of errors | calls that return so |
//!
//! A backslash takes the character after it literally.

mod classes;

use husk_abi::boundary::record_filter::{
    FilterRule, MAX_PROCESSES, MAX_RULES, PATHS_BYTES, PROCESS_TREE, RESULT_ERRNOS, RESULT_FAILURE,
    RESULT_SUCCESS, RecordFilter,
};
use husk_abi::linux::Errno;
use husk_abi::linux::syscalls::ALL;

/// Process ids are smaller (`PID_MAX_LIMIT`).
const PID_LIMIT: u32 = 4 << 20;

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("trace filter {expression:?} has no condition")]
    Empty { expression: String },
    #[error("trace filter: {key:?} is no condition: give call, pid, tree, path or result")]
    Key { key: String },
    #[error("trace filter: {key}= stands twice")]
    Twice { key: &'static str },
    #[error("trace filter: {key}= names nothing")]
    NoWord { key: &'static str },
    #[error("trace filter: there is no system call {word:?}")]
    Call { word: String },
    #[error("trace filter: there is no class {word:?}: give {}", classes::NAMES)]
    Class { word: String },
    #[error("trace filter: {word:?} is no process id")]
    Process { word: String },
    #[error("trace filter: {word:?} is no absolute path")]
    Path { word: String },
    #[error("trace filter: {word:?} is no result: give success, failure or an error's name")]
    Result { word: String },
    #[error("trace filter: more than {MAX_RULES} expressions")]
    TooManyRules,
    #[error("trace filter: more than {MAX_PROCESSES} processes in one expression")]
    TooManyProcesses,
    #[error("trace filter: the paths of one expression are longer than {} bytes", PATHS_BYTES - 1)]
    PathsTooLong,
}

/// The filter that records what one of `expressions` selects, or everything if there are none.
///
/// # Errors
/// [`Error`], which names the word.
pub fn filter<S: AsRef<str>>(expressions: &[S], flags: u32) -> Result<RecordFilter, Error> {
    if expressions.is_empty() {
        return Ok(RecordFilter::everything(flags));
    }
    let mut filter = RecordFilter::new(flags);
    for expression in expressions {
        if !filter.push(rule(expression.as_ref())?) {
            return Err(Error::TooManyRules);
        }
    }
    Ok(filter)
}

/// What one expression selects.
///
/// # Errors
/// [`Error`].
pub fn rule(expression: &str) -> Result<FilterRule, Error> {
    let mut rule = FilterRule::NONE;
    let mut seen = [false; KEYS.len()];
    let conditions = split(expression, char::is_whitespace);
    if conditions.is_empty() {
        return Err(Error::Empty {
            expression: expression.to_owned(),
        });
    }
    for condition in conditions {
        let (key, words) = condition.split_once('=').unwrap_or(("call", condition));
        let index = KEYS.iter().position(|known| *known == key);
        let index = index.ok_or_else(|| Error::Key {
            key: key.to_owned(),
        })?;
        let key = KEYS[index];
        if seen[index] {
            return Err(Error::Twice { key });
        }
        seen[index] = true;
        let (negated, words) = match words.strip_prefix('!') {
            Some(words) if key == "call" => (true, words),
            _ => (false, words),
        };
        let words: Vec<String> = split(words, |c| c == ',')
            .into_iter()
            .map(unescape)
            .collect();
        if words.is_empty() {
            return Err(Error::NoWord { key });
        }
        match key {
            "call" => calls(&mut rule, &words, negated)?,
            "pid" => processes(&mut rule, &words, 0)?,
            "tree" => processes(&mut rule, &words, PROCESS_TREE)?,
            "path" => paths(&mut rule, &words)?,
            _ => results(&mut rule, &words)?,
        }
    }
    if !seen[0] {
        rule.calls = FilterRule::ALL.calls;
    }
    Ok(rule)
}

const KEYS: [&str; 5] = ["call", "pid", "tree", "path", "result"];

/// The parts between unescaped separators that are not empty, still escaped.
fn split(text: &str, is_separator: impl Fn(char) -> bool) -> Vec<&str> {
    let mut escaped = false;
    text.split(move |c| {
        let separates = !escaped && is_separator(c);
        escaped = !escaped && c == '\\';
        separates
    })
    .filter(|part| !part.is_empty())
    .collect()
}

fn unescape(word: &str) -> String {
    let mut chars = word.chars();
    let mut plain = String::new();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' {
            chars.next().unwrap_or(c)
        } else {
            c
        });
    }
    plain
}

fn calls(rule: &mut FilterRule, words: &[String], negated: bool) -> Result<(), Error> {
    let mut named = FilterRule::NONE;
    for word in words {
        if let Some(class) = word.strip_prefix('%') {
            let is_in = classes::class(class).ok_or_else(|| Error::Class { word: word.clone() })?;
            for row in ALL.iter().filter(|row| is_in(row)) {
                named.add(u64::from(row.nr));
            }
        } else if word == "all" {
            named.calls = FilterRule::ALL.calls;
        } else if let Some(row) = ALL.iter().find(|row| row.name == word) {
            named.add(u64::from(row.nr));
        } else {
            let number = word.strip_prefix("syscall_").unwrap_or(word);
            let nr = number.parse::<u32>();
            named.add(u64::from(
                nr.map_err(|_| Error::Call { word: word.clone() })?,
            ));
        }
    }
    rule.calls = if negated {
        named.calls.map(|word| !word)
    } else {
        named.calls
    };
    Ok(())
}

fn processes(rule: &mut FilterRule, words: &[String], flag: u32) -> Result<(), Error> {
    for word in words {
        let pid = word.parse().ok().filter(|pid| (1..PID_LIMIT).contains(pid));
        let pid = pid.ok_or_else(|| Error::Process { word: word.clone() })?;
        let free = rule.processes.iter_mut().find(|process| **process == 0);
        *free.ok_or(Error::TooManyProcesses)? = pid | flag;
    }
    Ok(())
}

fn paths(rule: &mut FilterRule, words: &[String]) -> Result<(), Error> {
    let mut at = 0;
    for word in words {
        let is_good = word.starts_with('/') && !word.contains('\0');
        let parts = word.split('/').filter(|part| !part.is_empty());
        if !is_good || parts.clone().any(|part| part == "." || part == "..") {
            return Err(Error::Path { word: word.clone() });
        }
        let mut path: String = parts.flat_map(|part| ["/", part]).collect();
        if path.is_empty() {
            path.push('/');
        }
        // With the NUL that ends it.
        let place = rule.paths.get_mut(at..at + path.len() + 1);
        let place = place.ok_or(Error::PathsTooLong)?;
        place[..path.len()].copy_from_slice(path.as_bytes());
        at += path.len() + 1;
    }
    Ok(())
}

fn results(rule: &mut FilterRule, words: &[String]) -> Result<(), Error> {
    for word in words {
        match word.as_str() {
            "success" => rule.results |= RESULT_SUCCESS,
            "failure" => rule.results |= RESULT_FAILURE,
            name => {
                let code = (1..64 * rule.errnos.len())
                    .find(|code| {
                        i32::try_from(*code)
                            .is_ok_and(|code| Errno::from_code(code).name() == Some(name))
                    })
                    .ok_or_else(|| Error::Result { word: word.clone() })?;
                rule.errnos[code / 64] |= 1 << (code % 64);
                rule.results |= RESULT_ERRNOS;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
