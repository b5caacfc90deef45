//! OCI images: verify, unpack, store.
