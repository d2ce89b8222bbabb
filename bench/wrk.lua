-- Copyright 2026 The mod_rproxy authors
-- SPDX-License-Identifier: Apache-2.0

-- Prints what a wrk run has measured as one JSON line. No per-request function: it would cost time.
function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"completed":%d,"bytes":%.0f,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,' ..
        '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
        summary.requests, summary.bytes, summary.duration / 1e6,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000,
        errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
