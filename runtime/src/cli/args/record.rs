//! Options that say what to record of a container.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::record::{self, Format, Options, Policy, select};

/// `--trace` and what belongs to it: `create` and `run`.
#[derive(Clone, Debug, Default, Args)]
pub struct RecordArgs {
    /// Record system calls, and what the container asks of the host, to FILE
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Record only the calls EXPR selects, such as '%file result=failure' or 'read,write pid=7'; may be given again
    /// for others [default: all calls]
    #[arg(long, value_name = "EXPR", value_parser = expression, action = ArgAction::Append)]
    pub trace_filter: Vec<String>,
    /// What happens when records are made faster than they are written [default: block]
    #[arg(long, value_name = "POLICY")]
    pub trace_policy: Option<Policy>,
    /// The form of FILE [default: json]
    #[arg(long, value_name = "FORMAT")]
    pub trace_format: Option<Format>,
    /// Whose container it is, for the records
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
}

fn expression(text: &str) -> Result<String, select::Error> {
    select::rule(text).map(|_| text.to_owned())
}

impl RecordArgs {
    /// What is asked for, where `defaults` say what is not.
    ///
    /// # Errors
    /// More filters than there can be.
    pub fn options(&self, defaults: Options) -> Result<Options, record::Error> {
        let options = Options {
            filters: if self.trace_filter.is_empty() {
                defaults.filters
            } else {
                self.trace_filter.clone()
            },
            policy: self.trace_policy.unwrap_or(defaults.policy),
            format: self.trace_format.unwrap_or(defaults.format),
            tenant: self.tenant.clone().unwrap_or(defaults.tenant),
        };
        options.filter()?;
        Ok(options)
    }
}
