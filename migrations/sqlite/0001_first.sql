-- cutover's store. Times are milliseconds since 1970 in UTC, weights are basis points (500 = 5%).
-- Start with: SELECT * FROM arm_summary;  SELECT * FROM decision_log;  SELECT * FROM request_log;
--             SELECT * FROM cost_summary;  SELECT * FROM cost_by_tag;  SELECT * FROM cost_by_day;
-- This file is never edited after its release: changes go to a new file.

CREATE TABLE request_row (
    -- One row per attempt, as `store.requests` in the configuration asks, in the order of recording. Never a body or
    -- a credential. Packed, for there are many: read them by the view `request`, or by `request_log`.
    id INTEGER PRIMARY KEY,
    started_at INTEGER NOT NULL,
    kind INTEGER NOT NULL, -- id of its request_kind
    outcome TEXT NOT NULL ON CONFLICT REPLACE DEFAULT 'ok',
    latency_us INTEGER NOT NULL,
    ttft_us INTEGER,
    input_tokens INTEGER,
    cached_input_tokens INTEGER,
    cache_write_tokens INTEGER,
    output_tokens INTEGER,
    cost_usd REAL,
    upstream_request_id TEXT,
    key_hash INTEGER, -- its 64 bits with a sign
    cache_write_1h_tokens INTEGER,
    reported_cost_usd REAL
) STRICT;

-- Failures are rare: this index finds the latest ones without reading all that went well. So are probes.
CREATE INDEX request_failed ON request_row (id, outcome, kind) WHERE outcome <> 'ok';
CREATE INDEX request_probe ON request_row (started_at) WHERE kind < 0;

CREATE TABLE request_kind (
    -- What many attempts have in common, word by word. The same words may stand here more than once.
    id INTEGER PRIMARY KEY, -- below 0 for probes; no number is used twice
    made_at INTEGER NOT NULL, -- its rows began a day after this at the latest
    rollout TEXT,
    rollout_id TEXT,
    arm TEXT NOT NULL,
    assigned_arm TEXT NOT NULL,
    stage INTEGER NOT NULL,
    weight_bps INTEGER NOT NULL,
    model TEXT,
    streamed INTEGER NOT NULL,
    status INTEGER,
    attempt INTEGER NOT NULL,
    role TEXT NOT NULL,
    config_epoch INTEGER NOT NULL,
    tag TEXT
) STRICT;

CREATE INDEX request_kind_made_at ON request_kind (made_at);

-- By id it is quick, however many there are. Times have no index: a condition on `started_at` reads all rows.
CREATE VIEW request AS
SELECT
    r.id,
    r.started_at,
    k.rollout,
    k.rollout_id,
    k.arm, -- the one that was asked
    k.assigned_arm, -- the one that the sticky key names
    k.stage, -- from 0
    k.weight_bps,
    k.model,
    k.streamed,
    r.outcome,
    k.status, -- of the upstream; NULL when none came
    r.latency_us / 1000.0 AS latency_ms,
    r.ttft_us / 1000.0 AS ttft_ms, -- time to the first token; streams only
    r.input_tokens,
    r.cached_input_tokens,
    r.cache_write_tokens,
    r.output_tokens,
    r.cost_usd, -- NULL when it is unknown: the model has no price, no tokens were stated, or the stream broke off
    k.attempt, -- 1, or 2 for a rescue
    k.role, -- live, rescue, probe, override, pinned
    r.upstream_request_id,
    k.config_epoch,
    CASE WHEN r.key_hash IS NOT NULL THEN printf('%016x', r.key_hash) END AS key_hash, -- of the sticky key, hexadecimal
    r.cache_write_1h_tokens, -- the part of cache_write_tokens that is kept for an hour
    r.reported_cost_usd, -- what the provider itself says
    k.tag -- what the header of `proxy.tag-header` says
FROM request_row AS r
LEFT JOIN request_kind AS k ON k.id = r.kind;

-- The same with their time for people.
CREATE VIEW request_log AS
SELECT
    id,
    strftime('%Y-%m-%d %H:%M:%f', started_at / 1000.0, 'unixepoch', 'localtime') AS time,
    rollout, arm, role, attempt, model, streamed, outcome, status, latency_ms, ttft_ms,
    -- Milliseconds per output token after the first.
    CASE WHEN outcome = 'ok' AND streamed AND output_tokens >= 2 AND latency_ms >= ttft_ms
        THEN round((latency_ms - ttft_ms) / (output_tokens - 1), 3) END AS tpot_ms,
    -- Of the whole answer, the wait for the first one included.
    CASE WHEN outcome = 'ok' AND output_tokens >= 1 AND latency_ms > 0
        THEN round(1000.0 * output_tokens / latency_ms, 1) END AS tokens_per_s,
    input_tokens, cached_input_tokens, output_tokens, cost_usd, reported_cost_usd, tag, upstream_request_id
FROM request
ORDER BY id;

CREATE TABLE interval (
    -- Live traffic per minute; minutes older than two days are merged to hours.
    slot_at INTEGER NOT NULL,
    rollout_id TEXT NOT NULL,
    arm TEXT NOT NULL,
    stage INTEGER NOT NULL,
    rollout TEXT NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    rate_limited INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    client_gone INTEGER NOT NULL,
    masked INTEGER NOT NULL, -- failures of this arm that the other arm made good
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost_usd REAL, -- of the requests whose cost is known; NULL without any
    unpriced INTEGER NOT NULL, -- requests with tokens but of unknown cost
    no_usage INTEGER NOT NULL, -- requests that were answered and stated no tokens at all
    reported_cost_usd REAL, -- what the provider itself says; NULL if it says nothing
    -- The times of latency_bucket by the minute, packed; NULL without any. For programs: SQL cannot add them.
    latency_sketch BLOB,
    ttft_sketch BLOB,
    tpot_sketch BLOB,
    PRIMARY KEY (slot_at, rollout_id, arm, stage)
) STRICT, WITHOUT ROWID;

CREATE TABLE arm_total (
    -- Live traffic since the rollout id began: the sum of all intervals, those past retention included.
    rollout_id TEXT NOT NULL,
    arm TEXT NOT NULL,
    rollout TEXT NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    rate_limited INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    client_gone INTEGER NOT NULL,
    masked INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost_usd REAL,
    unpriced INTEGER NOT NULL,
    no_usage INTEGER NOT NULL,
    reported_cost_usd REAL,
    PRIMARY KEY (rollout_id, arm)
) STRICT, WITHOUT ROWID;

CREATE TABLE cost_by_day (
    -- What attempts of every role cost: those that stated tokens or a cost, or were answered at least in part.
    -- A day has at most 200 models and 200 tags that the configuration does not name; further ones are `other`.
    day TEXT NOT NULL, -- 'YYYY-MM-DD' in UTC, of the attempt's start
    rollout TEXT NOT NULL, -- its name; '' outside of all rollouts
    arm TEXT NOT NULL,
    model TEXT NOT NULL, -- the arm's own name, as in its prices; '' when the request named none
    tag TEXT NOT NULL, -- what the header of `proxy.tag-header` says; '' without one
    requests INTEGER NOT NULL,
    unpriced INTEGER NOT NULL, -- of these, with tokens but of unknown cost
    no_usage INTEGER NOT NULL, -- of these, without any tokens stated
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost_usd REAL, -- of those whose cost is known; NULL without any
    reported_cost_usd REAL, -- what the provider itself says; NULL if it says nothing
    PRIMARY KEY (day, rollout, arm, model, tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE budget_told (
    -- Thresholds of budgets that people were told of: each once a day, also over restarts.
    day TEXT NOT NULL, -- 'YYYY-MM-DD' in UTC
    budget TEXT NOT NULL, -- its name
    percent INTEGER NOT NULL,
    usd_per_day REAL NOT NULL, -- what the day might cost then
    PRIMARY KEY (day, budget, percent, usd_per_day)
) STRICT, WITHOUT ROWID;

CREATE VIEW cost_summary AS
SELECT
    arm, model,
    min(day) AS since,
    sum(requests) AS requests,
    sum(unpriced) AS unpriced,
    sum(no_usage) AS no_usage,
    sum(input_tokens) AS input_tokens,
    sum(cached_input_tokens) AS cached_input_tokens,
    CASE WHEN sum(input_tokens) > 0
        THEN round(1.0 * sum(cached_input_tokens) / sum(input_tokens), 4) END AS cache_hit_share,
    sum(cache_write_tokens) AS cache_write_tokens,
    sum(output_tokens) AS output_tokens,
    round(sum(cost_usd), 6) AS cost_usd,
    round(sum(reported_cost_usd), 6) AS reported_cost_usd
FROM cost_by_day
GROUP BY arm, model
ORDER BY arm DESC, model;

CREATE VIEW cost_by_tag AS
SELECT
    tag, arm,
    min(day) AS since,
    sum(requests) AS requests,
    sum(unpriced) AS unpriced,
    sum(no_usage) AS no_usage,
    sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens,
    round(sum(cost_usd), 6) AS cost_usd,
    round(sum(reported_cost_usd), 6) AS reported_cost_usd
FROM cost_by_day
GROUP BY tag, arm
ORDER BY tag, arm DESC;

CREATE TABLE latency_bucket (
    -- Times of successful live requests per hour. A bucket holds what is at most upper_ms and above the bucket
    -- before; each is 2% wider than the last, so counts of any slots can be added.
    slot_at INTEGER NOT NULL, -- the start of the hour
    rollout_id TEXT NOT NULL,
    arm TEXT NOT NULL,
    metric TEXT NOT NULL, -- latency, ttft, or tpot: the time per output token after the first
    bucket INTEGER NOT NULL,
    upper_ms REAL NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (slot_at, rollout_id, arm, metric, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE evidence_cell (
    -- What the controller decided on, a row per cell and arm. Cells older than two days are merged to minutes.
    id INTEGER PRIMARY KEY,
    rollout_id TEXT NOT NULL,
    block INTEGER NOT NULL,
    config_epoch INTEGER NOT NULL,
    opened_at INTEGER NOT NULL,
    closed_at INTEGER NOT NULL,
    weight_bps INTEGER NOT NULL,
    arm TEXT NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    rate_limited INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    streamed INTEGER NOT NULL,
    latency TEXT NOT NULL, -- JSON, bucket -> count
    ttft TEXT NOT NULL
) STRICT;

CREATE INDEX evidence_cell_opened_at ON evidence_cell (opened_at);

CREATE TABLE rollout_state (
    -- The latest state of each rollout. `version` counts its decisions; a writer that expects another one is refused.
    rollout_id TEXT PRIMARY KEY,
    rollout TEXT NOT NULL,
    version INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    state TEXT NOT NULL -- JSON
) STRICT, WITHOUT ROWID;

CREATE TABLE learned_id (
    -- State that the canary keeps for clients (responses, files, signatures ...). Who names it goes there.
    hash INTEGER PRIMARY KEY, -- of the id, which itself is never stored
    canary INTEGER NOT NULL, -- hash of the base-url that made it
    learned_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX learned_id_expires_at ON learned_id (canary, expires_at);

CREATE TABLE decision (
    -- Append-only.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    rollout TEXT NOT NULL,
    rollout_id TEXT NOT NULL,
    version INTEGER NOT NULL, -- of the rollout's state that was stored with it
    kind TEXT NOT NULL,
    weight_from_bps INTEGER NOT NULL,
    weight_to_bps INTEGER NOT NULL,
    stage INTEGER NOT NULL, -- from 0
    decided_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    evidence TEXT NOT NULL -- JSON
) STRICT;

CREATE INDEX decision_version ON decision (rollout_id, version);
CREATE INDEX decision_at ON decision (rollout_id, at);

CREATE TRIGGER decision_is_never_changed BEFORE UPDATE ON decision
BEGIN
    SELECT RAISE(ABORT, 'decisions are append-only');
END;

CREATE TRIGGER decision_is_never_deleted BEFORE DELETE ON decision
BEGIN
    SELECT RAISE(ABORT, 'decisions are append-only');
END;

CREATE VIEW decision_log AS
SELECT
    id,
    strftime('%Y-%m-%d %H:%M:%S', at / 1000, 'unixepoch', 'localtime') AS time,
    rollout,
    kind,
    printf('%g%%', weight_from_bps / 100.0) AS weight_from,
    printf('%g%%', weight_to_bps / 100.0) AS weight_to,
    stage + 1 AS stage, -- for people, as in the log
    decided_by,
    reason
FROM decision
ORDER BY id;

CREATE VIEW arm_summary AS
WITH bucket_sum AS (
    SELECT rollout_id, arm, metric, bucket, max(upper_ms) AS upper_ms, sum(count) AS count
    FROM latency_bucket
    GROUP BY rollout_id, arm, metric, bucket
),
ranked AS (
    SELECT
        rollout_id, arm, metric,
        upper_ms / 1.00995049383621 AS middle_ms, -- the geometric middle: within 1% of every time in the bucket
        sum(count) OVER (PARTITION BY rollout_id, arm, metric ORDER BY bucket) AS seen,
        sum(count) OVER (PARTITION BY rollout_id, arm, metric) AS total
    FROM bucket_sum
),
percentile AS (
    SELECT
        rollout_id, arm,
        min(middle_ms) FILTER (WHERE metric = 'latency' AND seen >= 0.50 * total) AS p50_ms,
        min(middle_ms) FILTER (WHERE metric = 'latency' AND seen >= 0.99 * total) AS p99_ms,
        min(middle_ms) FILTER (WHERE metric = 'ttft' AND seen >= 0.50 * total) AS ttft_p50_ms,
        min(middle_ms) FILTER (WHERE metric = 'ttft' AND seen >= 0.99 * total) AS ttft_p99_ms,
        min(middle_ms) FILTER (WHERE metric = 'tpot' AND seen >= 0.50 * total) AS tpot_p50_ms,
        min(middle_ms) FILTER (WHERE metric = 'tpot' AND seen >= 0.99 * total) AS tpot_p99_ms
    FROM ranked
    GROUP BY rollout_id, arm
)
SELECT
    t.rollout, t.rollout_id, t.arm, t.requests, t.errors,
    CASE WHEN t.requests > 0 THEN round(1.0 * t.errors / t.requests, 6) END AS error_rate,
    round(p.p50_ms, 2) AS p50_ms,
    round(p.p99_ms, 2) AS p99_ms,
    round(p.ttft_p50_ms, 2) AS ttft_p50_ms,
    round(p.ttft_p99_ms, 2) AS ttft_p99_ms,
    round(p.tpot_p50_ms, 2) AS tpot_p50_ms,
    round(p.tpot_p99_ms, 2) AS tpot_p99_ms,
    t.input_tokens, t.cached_input_tokens,
    CASE WHEN t.input_tokens > 0
        THEN round(1.0 * t.cached_input_tokens / t.input_tokens, 4) END AS cache_hit_share,
    t.output_tokens,
    round(t.cost_usd, 6) AS cost_usd,
    round(t.reported_cost_usd, 6) AS reported_cost_usd,
    t.rate_limited, t.rejected, t.client_gone, t.masked, t.unpriced, t.no_usage
FROM arm_total AS t
LEFT JOIN percentile AS p ON p.rollout_id = t.rollout_id AND p.arm = t.arm
ORDER BY t.rollout, t.rollout_id, t.arm DESC;
