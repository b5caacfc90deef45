//! End-to-end and differential tests.
