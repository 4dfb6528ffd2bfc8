-- Posts the file named after `--` repeatedly; prints wrk's counts as one line of JSON.
function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.path = "/predict"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = "image/png"
  -- A new connection per request: nginx closes idle ones on a reload, which wrk would count as failures.
  wrk.headers["Connection"] = "close"
  file:close()
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.3f, "p50_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, "failed": ' ..
    '{"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
