-- A webhook: each message is one POST of JSON. A service that is busy is asked again later, one that
-- does not like the request is not.
local kumo = require 'kumo'

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  if domain == 'webhook' then
    return kumo.make_queue_config {
      protocol = { custom_lua = { constructor = 'make.webhook' } },
    }
  end
end)

kumo.on('make.webhook', function(domain, tenant, campaign)
  local connection = {}
  local client = kumo.http.build_client {}

  function connection:send(message)
    local request = client:post(message:get_meta 'url')
    request:header('Content-Type', 'application/json')
    request:body(kumo.json_encode {
      id = message:id(),
      sender = tostring(message:sender()),
      attempts = message:num_attempts(),
      data = message:get_data(),
    })
    local response = request:send()
    local disposition = string.format(
      '%d %s: %s',
      response:status_code(),
      response:status_reason(),
      response:text()
    )
    if response:status_is_success() then
      return disposition
    end
    if response:status_code() == 429 or response:status_is_server_error() then
      kumo.reject(400, disposition)
    end
    kumo.reject(500, disposition)
  end

  function connection:close()
    client:close()
  end

  return connection
end)
