-- Asks forward_auth whether the request may pass, and gives its refusal to the client.

-- What of a refusal is for the client.
local passed_on = { "www-authenticate", "retry-after" }

core.register_action("forward_auth", { "http-req" }, function(txn, url)
    local headers = {}
    local sent = txn.http:req_get_headers()["authorization"]
    if sent then
        -- Each as it came: more than one is refused.
        headers["authorization"] = {}
        for n = 0, #sent do
            table.insert(headers["authorization"], sent[n])
        end
    end
    local answer = core.httpclient():get({ url = url, headers = headers, timeout = 2000 })
    if answer and answer.status == 200 then
        local first = function(name)
            local values = answer.headers[name]
            return values and values[0] or ""
        end
        txn:set_var("txn.auth_subject", first("x-auth-subject"))
        txn:set_var("txn.auth_token_id", first("x-auth-token-id"))
        txn:set_var("txn.auth_checked", first("x-auth-checked"))
        return
    end
    -- HAProxy makes 5xx of an answer that does not come.
    local status = answer and answer.status or 503
    if status < 400 or status > 599 then
        status = 503
    end
    local reply = txn:reply({ status = status })
    local given = {}
    for _, name in ipairs(passed_on) do
        local values = answer and answer.headers and answer.headers[name]
        if values and values[0] then
            reply:add_header(name, values[0])
            given[name] = true
        end
    end
    if status >= 500 and not given["retry-after"] then
        reply:add_header("retry-after", "1")
    end
    reply:add_header("cache-control", "no-store")
    txn:done(reply)
end, 1)
