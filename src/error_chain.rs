//! An error with all of its causes, for the log and for a `main` that returns it.

use std::error::Error;
use std::{fmt, iter};

/// Shows an error and what it was caused by in one line: `outer: cause: cause of the cause`.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)?;
        iter::successors(self.0.source(), |&cause| cause.source())
            .try_for_each(|cause| write!(f, ": {cause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreError, StoreErrorKind};

    #[test]
    fn every_cause_is_shown_once() {
        let inner = StoreError::new(StoreErrorKind::Other, "b").with_source(fmt::Error);
        let error = StoreError::new(StoreErrorKind::Other, "a").with_source(inner);
        assert_eq!(ErrorChain(&error).to_string(), format!("a: b: {}", fmt::Error));
        let error = StoreError::new(StoreErrorKind::Other, "a");
        assert_eq!(ErrorChain(&error).to_string(), "a");
    }
}
