use super::*;

#[test]
fn defaults_are_what_the_docs_say() {
    assert_eq!(DEFAULT_MAX_TOKEN_BYTES, 8192);
}
