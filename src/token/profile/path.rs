//! Where a claim is: at the top of the claims set, or inside of another claim.

use std::sync::Arc;

/// The most names that a path may have. What is read of a claim is bounded by it.
pub(super) const MAX_PATH_NAMES: usize = 8;

/// The way to a claim, as people write it.
///
/// | written | means |
/// | --- | --- |
/// | `tenant` | the claim `tenant` |
/// | `user.uid` | the member `uid` of the claim `user` |
/// | `/user/uid` | the same, as a JSON Pointer (RFC 6901) |
/// | `/kubernetes.io/pod` | the member `pod` of the claim `kubernetes.io` |
/// | `https://shop.example/role` | this claim: a name with `://` is not taken apart |
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClaimPath {
    written: Arc<str>,
    top: Box<str>,
    below: Box<[Box<str>]>,
}

impl ClaimPath {
    pub(super) fn new(written: impl Into<Arc<str>>) -> Self {
        let written = written.into();
        let mut names: Vec<Box<str>> = if let Some(pointer) = written.strip_prefix('/') {
            pointer
                .split('/')
                .map(|name| name.replace("~1", "/").replace("~0", "~").into())
                .collect()
        } else if written.contains("://") {
            vec![Box::from(&*written)]
        } else {
            written.split('.').map(Box::from).collect()
        };
        let below = names.split_off(1.min(names.len()));
        Self { top: names.pop().unwrap_or_default(), below: below.into(), written }
    }

    /// As it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.written
    }

    /// The name of the claim at the top.
    pub(super) fn top(&self) -> &str {
        &self.top
    }

    /// The names of the members below it; none for most.
    pub(super) fn below(&self) -> &[Box<str>] {
        &self.below
    }

    /// Whether it is the claim of this name at the top.
    pub(super) fn is(&self, name: &str) -> bool {
        *self.top == *name && self.below.is_empty()
    }

    /// Whether it leads into a claim.
    pub(super) fn is_nested(&self) -> bool {
        !self.below.is_empty()
    }

    /// Whether it leads to the same claim, however it is written.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.top == other.top && self.below == other.below
    }

    /// Whether it leads into the claim at this path.
    pub(super) fn is_below(&self, other: &Self) -> bool {
        self.top == other.top
            && self.below.len() > other.below.len()
            && self.below.starts_with(&other.below)
    }

    /// Whether a name on the way is empty, so that it leads nowhere.
    pub(super) fn is_empty(&self) -> bool {
        self.top.is_empty() || self.below.iter().any(|name| name.is_empty())
    }

    /// Whether it leads further down than claims are read.
    pub(super) fn is_too_long(&self) -> bool {
        self.below.len() >= MAX_PATH_NAMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_it_is_documented() {
        for (written, names) in [
            ("tenant", &["tenant"] as &[&str]),
            ("user.uid", &["user", "uid"]),
            ("/user/uid", &["user", "uid"]),
            ("/kubernetes.io/pod", &["kubernetes.io", "pod"]),
            ("/a~1b/c~0d/~01", &["a/b", "c~d", "~1"]),
            ("https://shop.example/role", &["https://shop.example/role"]),
            ("urn:zitadel:iam:org:id", &["urn:zitadel:iam:org:id"]),
        ] {
            let path = ClaimPath::new(written);
            let below = path.below.iter().map(|name| &**name);
            assert_eq!(std::iter::once(path.top()).chain(below).collect::<Vec<_>>(), names);
            assert!(!path.is_empty());
        }
        for nowhere in ["", ".", "a.", ".a", "a..b", "/", "/a/", "//a"] {
            assert!(ClaimPath::new(nowhere).is_empty(), "{nowhere:?}");
        }
    }
}
