use fred::error::{Error, ErrorKind};

use super::*;

#[test]
fn the_code_of_an_error_is_its_first_word_also_out_of_a_script() {
    for (details, code) in [
        ("NOPERM this user", "NOPERM"),
        ("OOM command not allowed script: abc, on @user_script:1.", "OOM"),
        (
            "ERR Error running script (call to f_abc): @user_script:1: -OOM command not allowed",
            "OOM",
        ),
        ("ERR unknown command", "ERR"),
        ("", ""),
    ] {
        assert_eq!(code_of(details), code, "{details}");
    }
}

#[test]
fn what_fred_says_itself_is_told_from_what_redis_says() {
    for (kind, details, expected) in [
        (ErrorKind::Unknown, "channel closed", StoreErrorKind::Unreachable),
        (ErrorKind::Unknown, "NEWCODE of a later version", StoreErrorKind::Other),
        (ErrorKind::IO, "Os { code: 104 }", StoreErrorKind::Unreachable),
        (ErrorKind::Timeout, "Request timed out.", StoreErrorKind::Timeout),
        (ErrorKind::Unknown, "LOADING", StoreErrorKind::Loading),
    ] {
        assert_eq!(classify(&Error::new(kind, details)).kind(), expected, "{details}");
    }
}

#[test]
fn an_error_of_the_system_is_told_in_its_words() {
    let refused = std::io::Error::from_raw_os_error(111);
    let error = classify(&Error::from(refused));
    assert!(
        !error.to_string().contains("Os {") && error.to_string().len() > "redis: ".len(),
        "{error}"
    );
    let odd = "Os { code: 1, kind: Other, message: \"x";
    assert_eq!(classify(&Error::new(ErrorKind::IO, odd)).to_string(), format!("redis: {odd}"));
    assert_eq!(
        classify(&Error::new(ErrorKind::Unknown, "OOM full")).to_string(),
        "redis: OOM full"
    );
}
