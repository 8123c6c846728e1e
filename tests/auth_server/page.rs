//! The page at `/`, as a person uses it.

use crate::browser::{Browser, Tab, browser_or_skip};
use crate::server::*;

/// What a tab shows of the session on a device.
fn shows(device: &str, state: &str) -> String {
    let badge = format!(
        "document.querySelector('[data-device={device}][data-state={state}] .badge')?.innerText"
    );
    format!("{badge} === '{state}'")
}

fn button(device: &str, action: &str) -> String {
    format!("[data-device={device}] [data-do={action}]")
}

fn logged(browser: &mut Browser, tab: &Tab) -> String {
    browser.value(tab, "document.querySelector('#log').innerText").as_str().unwrap().to_owned()
}

#[test]
fn a_person_ends_a_session_and_sees_it_refused_in_both_tabs() {
    let program = browser_or_skip!();
    let server = Server::start(&[]);
    let mut browser = Browser::start(&program);
    let tab = browser.open(&server.url);
    browser.picture(&tab, "1-empty");

    // Signs in twice, and calls the API.
    for device in ["laptop", "phone"] {
        browser.click(&tab, "#sign-in button.first");
        browser.until(&tab, &shows(device, "accepted"));
        browser.click(&tab, &button(device, "call"));
        browser.until(
            &tab,
            "document.querySelector('#log li').innerText.includes('GET /protected 200')",
        );
    }
    browser.click(&tab, &button("laptop", "refresh"));
    browser.until(&tab, "document.querySelector('#log').innerText.includes('POST /refresh 200')");
    browser.until(&tab, &shows("laptop", "accepted"));

    // A second tab has the same sessions.
    let second = browser.open(&server.url);
    for device in ["laptop", "phone"] {
        browser.until(&second, &shows(device, "accepted"));
    }
    browser.picture(&second, "2-signed-in");

    // One is ended in the first tab: both see it refused, and nothing else.
    browser.click(&tab, &button("phone", "end"));
    for tab in [&tab, &second] {
        browser.until(tab, &shows("phone", "refused"));
        assert_eq!(browser.value(tab, &shows("laptop", "accepted")), true);
    }
    browser.click(&second, &button("phone", "call"));
    browser.until(
        &second,
        "document.querySelector('#log li').innerText.includes('GET /protected 401')",
    );
    assert!(logged(&mut browser, &second).contains("alice on phone, asking by itself 401"));
    browser.picture(&second, "3-ended");

    // The used refresh token of the other one is presented: it ends as well, everywhere.
    browser.click(&second, &button("laptop", "steal"));
    for tab in [&tab, &second] {
        browser.until(tab, &shows("laptop", "refused"));
    }
    assert!(
        logged(&mut browser, &second).contains("POST /refresh 400 {\"error\":\"invalid_grant\"}")
    );
    assert_eq!(
        browser.value(&second, "document.querySelector('[data-do=everywhere]').disabled"),
        true
    );

    // And from the beginning: signed out everywhere.
    browser.click(&tab, "#sign-in button.first");
    browser.until(&second, "document.querySelectorAll('[data-state=accepted]').length === 1");
    browser.click(&second, "[data-do=everywhere]");
    for tab in [&tab, &second] {
        browser.until(tab, "document.querySelectorAll('[data-state=refused]').length === 3");
    }
    browser.picture(&tab, "4-all-over");
    // What is shown holds no token, and nothing was stored.
    for tab in [&tab, &second] {
        let page = browser.value(tab, "document.documentElement.outerHTML");
        assert!(!page.as_str().unwrap().contains("eyJ"));
        assert_eq!(
            browser
                .value(tab, "localStorage.length + sessionStorage.length + document.cookie.length"),
            0
        );
    }
}
