//! The page at `/admin`, as an operator uses it: with the keyboard, and on a phone.

use serde_json::json;

use crate::browser::{Browser, browser_or_skip};
use crate::server::*;
use crate::support::{RedisServer, redis_or_skip};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_revokes_explains_and_undoes_with_the_keyboard() {
    redis_or_skip!();
    let program = browser_or_skip!();
    let redis = RedisServer::start();
    let server = Server::on(&redis, &[]);
    let tokens = server.login("alice").await;
    server
        .admin("revoke", json!({ "jti": "\u{202e}<b>odd</b>\u{7}", "reason": "test" }))
        .await
        .is(204);

    // The page is there without a token, and the browser is told to run nothing else.
    let page = server.get("/admin", None).await.is(200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("connect-src 'self'"), "{policy}");
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    for outside in ["http://", "https://", "src=", " style=", " onclick="] {
        assert!(!text.contains(outside), "{outside}");
    }

    tokio::task::block_in_place(|| {
        let mut browser = Browser::start(&program);
        let tab = browser.open(&format!("{}/admin", server.url));
        // The field has the focus: a wrong token first.
        browser.type_text(&tab, "wrong");
        browser.press(&tab, "Enter");
        browser.until(&tab, "document.querySelector('#said').innerText.includes('not accepted')");
        browser.until(&tab, "document.activeElement.id === 'token'");
        browser.type_text(&tab, ADMIN);
        browser.press(&tab, "Enter");
        browser.until(&tab, "!document.querySelector('#inside').hidden");
        browser.until(&tab, "document.querySelector('#items').innerText.includes('<b>odd</b>')");
        let shown = browser.value(&tab, "document.querySelector('#items').textContent");
        let shown = shown.as_str().unwrap();
        assert!(!shown.contains('\u{202e}') && !shown.contains('\u{7}'), "{shown}");
        assert_eq!(browser.value(&tab, "document.querySelectorAll('#items b b').length"), 0);

        // Why is this token refused? It is not, yet.
        browser.until(&tab, "document.activeElement.id === 'explained'");
        browser.type_text(&tab, &tokens.access);
        browser.press(&tab, "Tab");
        browser.press(&tab, "Enter");
        browser.until(&tab, "document.querySelector('#said').innerText.includes('Accepted')");

        // Revokes the user: by Tab from field to field.
        browser.value(&tab, "document.querySelector('#id').focus()");
        browser.type_text(&tab, "alice");
        browser.press(&tab, "Tab");
        browser.type_text(&tab, "laptop stolen");
        browser.press(&tab, "Tab");
        browser.type_text(&tab, "carol");
        browser.press(&tab, "Enter");
        browser.until(
            &tab,
            "document.querySelector('#said').innerText.includes('Revoked: user alice')",
        );
        browser.until(&tab, "document.querySelector('#found').innerText.includes('laptop stolen')");
        browser.until(&tab, "document.querySelector('#items').innerText.includes('user alice')");
        browser.click(&tab, "#explain .first");
        browser.until(&tab, "document.querySelector('#why').innerText.includes('by: carol')");
        browser.until(&tab, "document.querySelector('#said').innerText.includes('revoked')");
        // The doctor, with the remedies; the counters go on meanwhile.
        browser.click(&tab, "#doctor");
        browser.until(&tab, "document.querySelector('#findings').innerText.includes('What to do')");
        let told = "document.querySelector('#servers').innerText";
        for figure in ["Version: ", "Memory: ", "Clients: ", "Revocations: ", "A check takes: "] {
            browser.until(&tab, &format!("{told}.includes('{figure}')"));
        }
        browser.until(&tab, "document.querySelector('[data-now=checks]').innerText !== '–'");
        browser.until(&tab, "document.querySelector('polyline.checks').getAttribute('points')");
        browser.until(&tab, "document.querySelector('[data-now=ready]').innerText === 'yes'");
        browser.picture(&tab, "admin-1");

        // Undo, as a button that can be reached and says what it undoes.
        let undo = "document.querySelector('#why [aria-label=\"Undo: user alice\"]')";
        browser.value(&tab, &format!("{undo}.focus()"));
        browser.press(&tab, "Enter");
        browser.until(&tab, "document.querySelector('#said').innerText.includes('Reinstated')");
        browser.click(&tab, "#explain .first");
        browser.until(
            &tab,
            "document.querySelector('#why').innerText !== ''
            || document.querySelector('#said').innerText.includes('Accepted')",
        );

        // On a phone nothing is cut off, and whatever is touched is large enough.
        browser.resize(&tab, 360, 740);
        let wide = "document.documentElement.scrollWidth <= 360";
        browser.until(&tab, wide);
        let small = "[...document.querySelectorAll('button, input, select')].filter((it) =>
            it.offsetParent && it.getBoundingClientRect().height < 40).length";
        assert_eq!(browser.value(&tab, small), 0);
        let nameless = "[...document.querySelectorAll('input, select, textarea')].filter((it) =>
            !it.labels.length).length";
        assert_eq!(browser.value(&tab, nameless), 0);
        browser.picture(&tab, "admin-2-phone");

        // The token of the administrator is nowhere but in the memory of the script.
        let kept = "localStorage.length + sessionStorage.length + document.cookie.length";
        assert_eq!(browser.value(&tab, kept), 0);
        let html = browser.value(&tab, "document.documentElement.outerHTML");
        assert!(!html.as_str().unwrap().contains(ADMIN));
        let values = "[...document.querySelectorAll('input')].map((it) => it.value).join()";
        assert!(!browser.value(&tab, values).as_str().unwrap().contains(ADMIN));
    });
}
